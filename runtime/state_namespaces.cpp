// StateStore's rows of namespaces.
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "runtime/state_store.h"

namespace pulga {
namespace {

using Json = nlohmann::json;
using Texts = std::map<std::string, std::string>;

std::string ToText(const Texts& texts) {
  return Json(texts).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Rows nobody else wrote, but an SD card may have changed: what can not be read is left out.
Texts FromText(const std::string& text) {
  Texts texts;
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return texts;
  for (const auto& [name, value] : json.items()) {
    if (value.is_string()) texts[name] = value.get<std::string>();
  }
  return texts;
}

}  // namespace

Status StateStore::LoadNamespaces(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(Statement* const rows,
                         Prepared("SELECT owner, name, labels, annotations FROM namespaces"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    state.namespaces.push_back(
        {rows->TextAt(0), rows->TextAt(1), FromText(rows->TextAt(2)), FromText(rows->TextAt(3))});
  }
}

Status StateStore::PutNamespace(const NamespaceRecord& record) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("INSERT INTO namespaces (owner, name, labels, annotations) VALUES (?, ?, ?, ?)"
               " ON CONFLICT (owner, name) DO UPDATE SET labels = excluded.labels,"
               " annotations = excluded.annotations"));
  return row->Text(record.owner)
      .Text(record.name)
      .Text(ToText(record.labels))
      .Text(ToText(record.annotations))
      .Run();
}

Status StateStore::DeleteNamespace(const NamespaceRecord& record) {
  return Freeing([&]() -> Status {
    return RunOwned("DELETE FROM namespaces WHERE owner = ? AND name = ?",
                    {record.owner, record.name});
  });
}

}  // namespace pulga
