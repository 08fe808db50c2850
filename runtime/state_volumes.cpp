// StateStore's rows of volumes and data sets.
#include "runtime/state_store.h"

namespace pulga {
namespace {

constexpr const char* kStates[] = {"pending", "ready", "removing"};

StoredVolume::State StateNamed(const std::string& name) {
  if (name == "ready") return StoredVolume::State::kReady;
  return name == "removing" ? StoredVolume::State::kRemoving : StoredVolume::State::kPending;
}

const char* NameOf(StoredVolume::State state) { return kStates[static_cast<size_t>(state)]; }

}  // namespace

Status StateStore::LoadVolumes(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT owner, name_space, name, id, size_bytes, coalesce(image_digest, ''), state,"
               " created_unix_ms FROM volumes ORDER BY owner, name_space, name"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    StoredVolume volume;
    volume.key = {rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)};
    volume.id = static_cast<uint64_t>(rows->IntAt(3));
    volume.bytes = static_cast<uint64_t>(rows->IntAt(4));
    volume.image_digest = rows->TextAt(5);
    volume.state = StateNamed(rows->TextAt(6));
    volume.created_unix_ms = rows->IntAt(7);
    state.volumes.push_back(std::move(volume));
  }
}

Status StateStore::AddVolume(const StoredVolume& volume) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const insert,
      Prepared("INSERT INTO volumes (owner, name_space, name, id, size_bytes, image_owner,"
               " image_digest, state, created_unix_ms)"
               " VALUES (?1, ?2, ?3, ?4, ?5, iif(?6 = '', NULL, ?1), nullif(?6, ''), ?7, ?8)"));
  return insert->Text(volume.key.owner)
      .Text(volume.key.name_space)
      .Text(volume.key.name)
      .Int(static_cast<int64_t>(volume.id))
      .Int(static_cast<int64_t>(volume.bytes))
      .Text(volume.image_digest)
      .Text(NameOf(volume.state))
      .Int(volume.created_unix_ms)
      .Run();
}

Status StateStore::SetVolumeState(uint64_t id, StoredVolume::State state) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(Statement* const update,
                           Prepared("UPDATE volumes SET state = ? WHERE id = ?"));
    return update->Text(NameOf(state)).Int(static_cast<int64_t>(id)).Run();
  });
}

Status StateStore::SetVolumeSize(uint64_t id, uint64_t bytes) {
  PULGA_ASSIGN_OR_RETURN(Statement* const update,
                         Prepared("UPDATE volumes SET size_bytes = ? WHERE id = ?"));
  return update->Int(static_cast<int64_t>(bytes)).Int(static_cast<int64_t>(id)).Run();
}

Status StateStore::DeleteVolume(uint64_t id) {
  return Freeing([&]() -> Status { return RunInt("DELETE FROM volumes WHERE id = ?", id); });
}

}  // namespace pulga
