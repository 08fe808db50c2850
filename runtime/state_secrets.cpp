// StateStore's rows of secrets: sealed, and opaque to it.
#include "runtime/state_store.h"

namespace pulga {

Status StateStore::LoadSecrets(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT owner, name_space, name, key_id, size_bytes, created_unix_ms,"
               " changed_unix_ms FROM secrets ORDER BY owner, name_space, name"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    StoredSecret secret;
    secret.key = {rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)};
    secret.key_id = rows->TextAt(3);
    secret.bytes = static_cast<uint64_t>(rows->IntAt(4));
    secret.created_unix_ms = rows->IntAt(5);
    secret.changed_unix_ms = rows->IntAt(6);
    state.secrets.push_back(std::move(secret));
  }
}

Status StateStore::PutSecret(const StoredSecret& secret) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const put,
      Prepared("INSERT INTO secrets (owner, name_space, name, key_id, nonce, sealed, size_bytes,"
               " created_unix_ms, changed_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
               " ON CONFLICT (owner, name_space, name) DO UPDATE SET key_id = excluded.key_id,"
               " nonce = excluded.nonce, sealed = excluded.sealed,"
               " size_bytes = excluded.size_bytes, changed_unix_ms = excluded.changed_unix_ms"));
  return put->Text(secret.key.owner)
      .Text(secret.key.name_space)
      .Text(secret.key.name)
      .Text(secret.key_id)
      .Blob(secret.nonce)
      .Blob(secret.sealed)
      .Int(static_cast<int64_t>(secret.bytes))
      .Int(secret.created_unix_ms)
      .Int(secret.changed_unix_ms)
      .Run();
}

Result<StoredSecret> StateStore::Secret(const FunctionKey& key) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT key_id, nonce, sealed, size_bytes, created_unix_ms, changed_unix_ms"
               " FROM secrets WHERE owner = ? AND name_space = ? AND name = ?"));
  rows->Text(key.owner).Text(key.name_space).Text(key.name);
  PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
  if (!row) return Error{Code::kNotFound, 0, "unable to find secret: " + key.name};
  StoredSecret secret;
  secret.key = key;
  secret.key_id = rows->TextAt(0);
  secret.nonce = rows->TextAt(1);
  secret.sealed = rows->TextAt(2);
  secret.bytes = static_cast<uint64_t>(rows->IntAt(3));
  secret.created_unix_ms = rows->IntAt(4);
  secret.changed_unix_ms = rows->IntAt(5);
  rows->Reset();
  return secret;
}

Result<int64_t> StateStore::CountSecrets() {
  return database_->QueryInt("SELECT count(*) FROM secrets");
}

Status StateStore::DeleteSecret(const FunctionKey& key) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(
        Statement* const remove,
        Prepared("DELETE FROM secrets WHERE owner = ? AND name_space = ? AND name = ?"));
    return remove->Text(key.owner).Text(key.name_space).Text(key.name).Run();
  });
}

}  // namespace pulga
