// AccountService: users and API keys as the API sees them. All of them are mirrored in memory, so
// that telling who a key is never touches the disk (a search in a map and one SHA-256). Changes are
// on disk before they are answered and hold from then on; when keys were last used is written in
// batches, and a crash loses up to kUseInterval of it. Loop thread; rows on the storage thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/work_queue.h"
#include "runtime/accounts/permissions.h"
#include "runtime/op_queue.h"
#include "runtime/state_store.h"

namespace pulga {

struct AccountParts {
  EventLoop& loop;
  const Clock& clock;
  WorkQueue& storage;
  StateStore& store;
};

struct UserChange {
  std::optional<Role> role;
  std::optional<UserState> state;
};

struct KeyOrder {
  std::string user;
  std::string label;
  Scopes scopes = 0;
  std::optional<Duration> lifetime;  // nothing: until it is revoked
  ApiKey::Kind kind = ApiKey::Kind::kLasting;
};
struct NewKey {
  ApiKey key;
  std::string text;  // kept nowhere
};

class AccountService {
 public:
  static constexpr Duration kUseInterval = std::chrono::minutes(5);

  explicit AccountService(AccountParts parts) : parts_(parts), ops_(parts.loop) {}
  ~AccountService();

  void Load(std::vector<User> users, std::vector<ApiKey> keys);

  // Whose key it is, and what it may be used for. Nothing for a key that is unknown, wrong, expired
  // or revoked, or of a user who is disabled, in the same time.
  std::optional<Identity> Identify(std::string_view key_text);

  std::vector<User> Users() const;  // by name
  const User* FindUser(std::string_view name) const;
  std::vector<ApiKey> Keys() const;  // by user, then as they were made
  const ApiKey* FindKey(std::string_view id) const;

  // kInvalidArgument, kAlreadyExists, kNoSpace (kMaxUsers).
  void AddUser(User user, std::function<void(Result<User>)> done);
  // kNotFound; kAlreadyExists: the built-in administrator stays one.
  void ChangeUser(const std::string& name, UserChange change,
                  std::function<void(Result<User>)> done);
  // With their keys. Errors as of ChangeUser.
  void RemoveUser(const std::string& name, std::function<void(Status)> done);
  // As HashPassword gives it; ends what the user signed in for. kNotFound.
  void SetPassword(const std::string& name, std::string hash, std::function<void(Status)> done);
  // kInvalidArgument, kNotFound (the user), kNoSpace (kMaxKeysPerUser). A session takes the place
  // of the user's that have ended, and of the oldest when there are too many.
  void MakeKey(KeyOrder order, std::function<void(Result<NewKey>)> done);
  void RevokeKey(const std::string& id, std::function<void(Status)> done);

  // What was noted of keys' use goes to the storage thread now.
  void SaveUses();

 private:
  Status MayAdd(const User& user) const;
  Status MayMake(const KeyOrder& order) const;
  // Ids of sessions that one more of `user` takes the place of.
  std::vector<std::string> ReplacedSessions(const std::string& user) const;
  void NoteUse(ApiKey& key, int64_t now_unix_ms);
  // `store` on the storage thread, then `apply` on the loop, as one operation of ops_.
  void Change(const char* what, std::function<Status()> check, std::function<Status()> store,
              std::function<void(const Status&)> apply);

  AccountParts parts_;
  OpQueue ops_;
  std::map<std::string, User, std::less<>> users_;
  std::map<std::string, ApiKey, std::less<>> keys_;
  std::set<std::string> used_;  // ids whose last use is not on disk
  EventLoop::TimerId save_timer_ = 0;
};

}  // namespace pulga
