#include "runtime/accounts/account_service.h"

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/text.h"
#include "images/digest.h"

namespace pulga {
namespace {

Error NoUser(std::string_view name) {
  return Error{Code::kNotFound, 0, "user " + Printable(name, 80) + " does not exist"};
}

Error NoKey(std::string_view id) {
  return Error{Code::kNotFound, 0, "key " + Printable(id, 80) + " does not exist"};
}

Error BuiltIn() {
  return Error{
      Code::kAlreadyExists, 0,
      std::string("user ") + kDefaultOwner + " is the built-in administrator and stays one"};
}

}  // namespace

AccountService::~AccountService() { parts_.loop.Cancel(save_timer_); }

void AccountService::Load(std::vector<User> users, std::vector<ApiKey> keys) {
  for (User& user : users) users_[user.name] = std::move(user);
  for (ApiKey& key : keys) keys_[key.id] = std::move(key);
}

std::optional<Identity> AccountService::Identify(std::string_view key_text) {
  const auto text = ParseKeyText(key_text);
  if (!text) return std::nullopt;
  // One hash and one comparison whoever it is: only the public half may be told by the time.
  const std::string given = Sha256Hex(text->secret);
  const auto found = keys_.find(text->id);
  const std::string nobody(given.size(), '-');
  const bool known = found != keys_.end();
  if (!EqualsConstantTime(given, known ? found->second.secret_sha256 : nobody)) return std::nullopt;
  ApiKey& key = found->second;
  const int64_t now = UnixMillis(parts_.clock);
  if (key.expires_unix_ms != 0 && key.expires_unix_ms <= now) return std::nullopt;
  const User* user = FindUser(key.user);
  if (user == nullptr || user->state == UserState::kDisabled) return std::nullopt;
  NoteUse(key, now);
  return Identity{user->name, user->role, key.scopes};
}

void AccountService::NoteUse(ApiKey& key, int64_t now_unix_ms) {
  key.last_used_unix_ms = now_unix_ms;
  if (!used_.contains(key.id)) used_.insert(key.id);
  if (save_timer_ != 0) return;
  save_timer_ = parts_.loop.CallAfter(kUseInterval, [this] {
    save_timer_ = 0;
    SaveUses();
  });
}

void AccountService::SaveUses() {
  std::vector<KeyUse> uses;
  for (const std::string& id : std::exchange(used_, {})) {
    if (const ApiKey* key = FindKey(id)) uses.push_back({id, key->last_used_unix_ms});
  }
  if (uses.empty()) return;
  parts_.storage.Run(
      [&store = parts_.store, uses = std::move(uses)] { return store.NoteKeyUses(uses); },
      [](const Status& stored) {
        if (!stored.ok()) LogWarning("when keys were used: " + stored.error().message);
      });
}

std::vector<User> AccountService::Users() const {
  std::vector<User> out;
  out.reserve(users_.size());
  for (const auto& [name, user] : users_) out.push_back(user);
  return out;
}

const User* AccountService::FindUser(std::string_view name) const {
  const auto found = users_.find(name);
  return found == users_.end() ? nullptr : &found->second;
}

std::vector<ApiKey> AccountService::Keys() const {
  std::vector<ApiKey> out;
  out.reserve(keys_.size());
  for (const auto& [id, key] : keys_) out.push_back(key);
  std::sort(out.begin(), out.end(), [](const ApiKey& a, const ApiKey& b) {
    return std::tie(a.user, a.created_unix_ms, a.id) < std::tie(b.user, b.created_unix_ms, b.id);
  });
  return out;
}

const ApiKey* AccountService::FindKey(std::string_view id) const {
  const auto found = keys_.find(id);
  return found == keys_.end() ? nullptr : &found->second;
}

void AccountService::Change(const char* what, std::function<Status()> check,
                            std::function<Status()> store,
                            std::function<void(const Status&)> apply) {
  ops_.Add([this, what, check = std::move(check), store = std::move(store),
            apply = std::move(apply)](const OpQueue::Done& next) {
    const Status may = check();
    if (!may.ok()) {
      apply(may);
      return next();
    }
    parts_.storage.Run(store, [what, apply, next](const Status& stored) {
      apply(stored.ok() ? stored : Status(Prefix(what, stored.error())));
      next();
    });
  });
}

Status AccountService::MayAdd(const User& user) const {
  PULGA_RETURN_IF_ERROR(CheckUserName(user.name));
  if (users_.contains(user.name)) {
    return Error{Code::kAlreadyExists, 0, "user " + user.name + " exists"};
  }
  if (users_.size() < kMaxUsers) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "there are " + std::to_string(kMaxUsers) + " users already: remove some"};
}

void AccountService::AddUser(User user, std::function<void(Result<User>)> done) {
  user.created_unix_ms = UnixMillis(parts_.clock);
  Change(
      "add the user", [this, user] { return MayAdd(user); },
      [&store = parts_.store, user] { return store.PutUser(user); },
      [this, user, done = std::move(done)](const Status& added) {
        if (!added.ok()) return done(added.error());
        users_[user.name] = user;
        LogInfo("added user " + user.name + ", " + std::string(RoleName(user.role)));
        done(user);
      });
}

void AccountService::ChangeUser(const std::string& name, UserChange change,
                                std::function<void(Result<User>)> done) {
  // What is stored is what the check saw: operations do not overlap.
  const auto changed = std::make_shared<User>();
  const auto check = [this, name, change, changed]() -> Status {
    const User* user = FindUser(name);
    if (user == nullptr) return NoUser(name);
    *changed = *user;
    if (change.role) changed->role = *change.role;
    if (change.state) changed->state = *change.state;
    const bool weaker =
        changed->role != Role::kAdministrator || changed->state == UserState::kDisabled;
    if (name == kDefaultOwner && weaker) return BuiltIn();
    return OkStatus();
  };
  Change(
      "change the user", check,
      [&store = parts_.store, changed] { return store.PutUser(*changed); },
      [this, changed, done = std::move(done)](const Status& stored) {
        if (!stored.ok()) return done(stored.error());
        users_[changed->name] = *changed;
        const bool disabled = changed->state == UserState::kDisabled;
        LogInfo("user " + changed->name + " is " + std::string(RoleName(changed->role)) +
                (disabled ? ", disabled" : ""));
        done(*changed);
      });
}

void AccountService::RemoveUser(const std::string& name, std::function<void(Status)> done) {
  const auto check = [this, name]() -> Status {
    if (name == kDefaultOwner) return BuiltIn();
    return FindUser(name) == nullptr ? Status(NoUser(name)) : OkStatus();
  };
  Change(
      "remove the user", check, [&store = parts_.store, name] { return store.DeleteUser(name); },
      [this, name, done = std::move(done)](const Status& removed) {
        if (removed.ok()) {
          users_.erase(name);
          std::erase_if(keys_, [&](const auto& entry) { return entry.second.user == name; });
          LogInfo("removed user " + name);
        }
        done(removed);
      });
}

Status AccountService::MayMake(const KeyOrder& order) const {
  if (!users_.contains(order.user)) return NoUser(order.user);
  if (order.kind == ApiKey::Kind::kSession) return OkStatus();
  const auto has = std::count_if(keys_.begin(), keys_.end(), [&](const auto& entry) {
    return entry.second.user == order.user && entry.second.kind == ApiKey::Kind::kLasting;
  });
  if (static_cast<size_t>(has) < kMaxKeysPerUser) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "user " + order.user + " has " + std::to_string(kMaxKeysPerUser) +
                   " keys already: revoke some"};
}

std::vector<std::string> AccountService::ReplacedSessions(const std::string& user) const {
  std::vector<const ApiKey*> sessions;
  for (const auto& [id, key] : keys_) {
    if (key.user == user && key.kind == ApiKey::Kind::kSession) sessions.push_back(&key);
  }
  std::sort(sessions.begin(), sessions.end(), [](const ApiKey* a, const ApiKey* b) {
    return a->created_unix_ms > b->created_unix_ms;
  });
  const int64_t now = UnixMillis(parts_.clock);
  std::vector<std::string> replaced;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const bool ended = sessions[i]->expires_unix_ms <= now;
    if (ended || i + 1 >= kMaxSessionsPerUser) replaced.push_back(sessions[i]->id);
  }
  return replaced;
}

void AccountService::SetPassword(const std::string& name, std::string hash,
                                 std::function<void(Status)> done) {
  Change(
      "set the password",
      [this, name] { return FindUser(name) == nullptr ? Status(NoUser(name)) : OkStatus(); },
      [&store = parts_.store, name, hash] { return store.SetPassword(name, hash); },
      [this, name, hash, done = std::move(done)](const Status& stored) {
        if (stored.ok()) {
          users_[name].password_hash = hash;
          std::erase_if(keys_, [&](const auto& entry) {
            return entry.second.user == name && entry.second.kind == ApiKey::Kind::kSession;
          });
          LogInfo("user " + name + " has another password");
        }
        done(stored);
      });
}

void AccountService::MakeKey(KeyOrder order, std::function<void(Result<NewKey>)> done) {
  const Status labelled = CheckKeyLabel(order.label);
  if (!labelled.ok()) return done(labelled.error());
  NewKey made;
  made.key.id = RandomHex(8);
  const std::string secret = RandomHex(32);
  made.text = std::string(kKeyPrefix) + made.key.id + "_" + secret;
  made.key.secret_sha256 = Sha256Hex(secret);
  made.key.user = order.user;
  made.key.label = order.label;
  made.key.scopes = order.scopes;
  made.key.kind = order.kind;
  made.key.created_unix_ms = UnixMillis(parts_.clock);
  if (order.lifetime) {
    made.key.expires_unix_ms =
        made.key.created_unix_ms +
        std::chrono::duration_cast<std::chrono::milliseconds>(*order.lifetime).count();
  }
  const auto replaced = std::make_shared<std::vector<std::string>>();
  const auto check = [this, order = std::move(order), replaced] {
    if (order.kind == ApiKey::Kind::kSession) *replaced = ReplacedSessions(order.user);
    return MayMake(order);
  };
  Change(
      "make the key", check,
      [&store = parts_.store, key = made.key, replaced] { return store.AddKey(key, *replaced); },
      [this, made, replaced, done = std::move(done)](const Status& stored) {
        if (!stored.ok()) return done(stored.error());
        for (const std::string& id : *replaced) keys_.erase(id);
        keys_[made.key.id] = made.key;
        LogInfo("made key " + made.key.id + " for user " + made.key.user);
        done(made);
      });
}

void AccountService::RevokeKey(const std::string& id, std::function<void(Status)> done) {
  Change(
      "revoke the key",
      [this, id] { return FindKey(id) == nullptr ? Status(NoKey(id)) : OkStatus(); },
      [&store = parts_.store, id] { return store.DeleteKey(id); },
      [this, id, done = std::move(done)](const Status& revoked) {
        if (revoked.ok()) {
          keys_.erase(id);
          LogInfo("revoked key " + id);
        }
        done(revoked);
      });
}

}  // namespace pulga
