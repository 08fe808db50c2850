#include "api/secret_codec.h"

#include <nlohmann/json.hpp>

#include "api/json_codec.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const SecretView& secret) {
  return {{"name", secret.key.name},
          {"namespace", secret.key.name_space},
          {"size_bytes", secret.bytes},
          {"used_by", secret.used_by},
          {"created_at", Rfc3339(secret.created_unix_ms)},
          {"changed_at", Rfc3339(secret.changed_unix_ms)}};
}

}  // namespace

std::string SecretJson(const SecretView& secret) { return ToJson(secret).dump() + "\n"; }

std::string SecretListJson(const std::vector<SecretView>& secrets) {
  Json list = Json::array();
  for (const SecretView& secret : secrets) list.push_back(ToJson(secret));
  return Json{{"secrets", std::move(list)}}.dump() + "\n";
}

}  // namespace pulga
