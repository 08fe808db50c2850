// StateStore's rows of users and API keys.
#include "runtime/state_store.h"

namespace pulga {
namespace {

constexpr const char* kDeleteKey = "DELETE FROM api_keys WHERE id = ?";

}  // namespace

Status StateStore::LoadAccounts(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const users,
      Prepared("SELECT name, role, disabled, created_unix_ms, password_hash FROM users"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, users->Step());
    if (!row) break;
    User user;
    user.name = users->TextAt(0);
    // The table's own check lets nothing else in; the least of all, should that ever change.
    user.role = ParseRole(users->TextAt(1)).value_or(Role::kLimited);
    user.state = users->IntAt(2) == 0 ? UserState::kActive : UserState::kDisabled;
    user.created_unix_ms = users->IntAt(3);
    user.password_hash = users->TextAt(4);
    state.users.push_back(std::move(user));
  }
  PULGA_ASSIGN_OR_RETURN(
      Statement* const keys,
      Prepared("SELECT id, user_name, label, scopes, secret_sha256, created_unix_ms,"
               " expires_unix_ms, last_used_unix_ms, session FROM api_keys"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, keys->Step());
    if (!row) return OkStatus();
    ApiKey key;
    key.id = keys->TextAt(0);
    key.user = keys->TextAt(1);
    key.label = keys->TextAt(2);
    key.scopes = static_cast<Scopes>(keys->IntAt(3));
    key.secret_sha256 = keys->TextAt(4);
    key.created_unix_ms = keys->IntAt(5);
    key.expires_unix_ms = keys->IntAt(6);
    key.last_used_unix_ms = keys->IntAt(7);
    key.kind = keys->IntAt(8) == 0 ? ApiKey::Kind::kLasting : ApiKey::Kind::kSession;
    state.keys.push_back(std::move(key));
  }
}

Status StateStore::PutUser(const User& user) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const put,
      Prepared("INSERT INTO users (name, role, disabled, created_unix_ms) VALUES (?, ?, ?, ?)"
               " ON CONFLICT (name) DO UPDATE SET role = excluded.role,"
               " disabled = excluded.disabled"));
  return put->Text(user.name)
      .Text(RoleName(user.role))
      .Int(user.state == UserState::kDisabled ? 1 : 0)
      .Int(user.created_unix_ms)
      .Run();
}

Status StateStore::DeleteUser(const std::string& name) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(Statement* const remove, Prepared("DELETE FROM users WHERE name = ?"));
    return remove->Text(name).Run();
  });
}

Status StateStore::SetPassword(const std::string& user, const std::string& hash) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  PULGA_ASSIGN_OR_RETURN(Statement* const set,
                         Prepared("UPDATE users SET password_hash = ? WHERE name = ?"));
  PULGA_RETURN_IF_ERROR(set->Text(hash).Text(user).Run());
  PULGA_ASSIGN_OR_RETURN(Statement* const end,
                         Prepared("DELETE FROM api_keys WHERE user_name = ? AND session = 1"));
  PULGA_RETURN_IF_ERROR(end->Text(user).Run());
  return transaction.Commit();
}

Status StateStore::AddKey(const ApiKey& key, const std::vector<std::string>& replaced_ids) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  for (const std::string& id : replaced_ids) {
    PULGA_ASSIGN_OR_RETURN(Statement* const remove, Prepared(kDeleteKey));
    PULGA_RETURN_IF_ERROR(remove->Text(id).Run());
  }
  PULGA_ASSIGN_OR_RETURN(
      Statement* const add,
      Prepared("INSERT INTO api_keys (id, user_name, label, scopes, secret_sha256,"
               " created_unix_ms, expires_unix_ms, last_used_unix_ms, session)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)"));
  PULGA_RETURN_IF_ERROR(add->Text(key.id)
                            .Text(key.user)
                            .Text(key.label)
                            .Int(key.scopes)
                            .Text(key.secret_sha256)
                            .Int(key.created_unix_ms)
                            .Int(key.expires_unix_ms)
                            .Int(key.kind == ApiKey::Kind::kSession ? 1 : 0)
                            .Run());
  return transaction.Commit();
}

Status StateStore::DeleteKey(const std::string& id) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(Statement* const remove, Prepared(kDeleteKey));
    return remove->Text(id).Run();
  });
}

Status StateStore::NoteKeyUses(const std::vector<KeyUse>& uses) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  for (const KeyUse& use : uses) {
    PULGA_ASSIGN_OR_RETURN(Statement* const note,
                           Prepared("UPDATE api_keys SET last_used_unix_ms = ? WHERE id = ?"));
    PULGA_RETURN_IF_ERROR(note->Int(use.unix_ms).Text(use.id).Run());
  }
  return transaction.Commit();
}

}  // namespace pulga
