// StateStore: the rows that are the only truth about what exists. Everything on disk, in cgroups or
// mounted without a row is garbage. Blocks: storage thread, and start-up before the loop runs.
// Each call is one transaction: after a crash it happened whole or not at all; Ok means on disk.
// Open refuses, and changes nothing, when the file is damaged (kIo), foreign or from a newer Pulga
// (kUnsupported), or gone from a directory in use (kNotFound); the message says what to do.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/log.h"
#include "base/result.h"
#include "images/image.h"
#include "runtime/accounts/account.h"
#include "runtime/ballast.h"
#include "runtime/database.h"
#include "runtime/function_book.h"
#include "runtime/function_spec.h"
#include "runtime/namespaces.h"
#include "runtime/policy/hour_of_calls.h"

namespace pulga {

struct StoredVersion {
  enum class State : uint8_t { kPending, kActive, kKept };
  uint64_t id = 0;
  uint32_t number = 0;
  State state = State::kPending;
  std::string spec_json;  // runtime/spec_json
  std::string image_digest;
  int64_t created_unix_ms = 0;
};

struct StoredFunction {
  FunctionKey key;
  std::vector<StoredVersion> versions;  // highest number first; exactly one is active
};

// A name (normalised) or a digest of an image: each owner has their own.
struct OwnedImage {
  std::string owner;
  std::string name;
};

// A volume, or a data set, which is an image that functions see as files.
struct StoredVolume {
  // kPending and kRemoving: what a crash left half done; nobody was told that it is there.
  enum class State : uint8_t { kPending, kReady, kRemoving };
  FunctionKey key;           // names are shared with nobody but their owner, as those of functions
  uint64_t id = 0;           // random, never 0 and never above INT64_MAX
  uint64_t bytes = 0;        // a volume's
  std::string image_digest;  // a data set's; its owner is the key's
  State state = State::kPending;
  int64_t created_unix_ms = 0;
  bool data_set() const { return !image_digest.empty(); }
};

struct StoredSecret {
  FunctionKey key;
  std::string key_id;  // of the key that it is sealed with
  std::string nonce;   // this and what follows: not of those that Load() tells of
  std::string sealed;
  uint64_t bytes = 0;  // of its value
  int64_t created_unix_ms = 0;
  int64_t changed_unix_ms = 0;
};

// When an API key was last used.
struct KeyUse {
  std::string id;
  int64_t unix_ms = 0;
};

struct StoredHabit {
  FunctionKey key;
  Learned learned;  // read back: without the minutes
};

// A function's calls in one hour.
struct CallHour {
  FunctionKey key;
  int64_t hour = 0;     // since 1970
  std::string minutes;  // as HourOfCalls writes them
  std::string costs;    // the function's, as CostBook writes them; "" where none were seen
};

struct StoredState {
  std::vector<ImageRecord> images;
  std::vector<StoredFunction> functions;
  std::vector<StoredVolume> volumes;
  std::vector<StoredSecret> secrets;
  std::vector<StoredHabit> habits;  // without those that are damaged
  std::vector<NamespaceRecord> namespaces;
  std::vector<User> users;
  std::vector<ApiKey> keys;
};

class StateStore {
 public:
  // `data_dir` exists. The database is DIR/pulga.db; DIR/admin.key tells that it was used before.
  static Result<std::unique_ptr<StateStore>> Open(const std::string& data_dir);
  // One that goes with its directory, and so without room set aside; it may be of an older Pulga.
  static Result<std::unique_ptr<StateStore>> OpenCopy(const std::string& dir);
  // Sets aside the room that deletions on a full disk need, unless that was done before.
  void KeepBallast() { ballast_.Keep(); }

  // Also ends what a crash left half done: versions that were never activated go.
  Result<StoredState> Load();

  // All images of one archive become visible together. A name they carry moves from its old image.
  Status StoreImages(const std::vector<ImageRecord>& images, int64_t now_unix_ms);
  // The configuration's bytes, as the archive had them: Load() leaves them where they are.
  Result<std::string> ConfigOf(const OwnedImage& digest);
  Status RemoveRef(const OwnedImage& ref);
  // The images, their names, and the layers nobody else has, which are returned. kAlreadyExists
  // while a version needs one of them; then all stay.
  Result<std::vector<LayerId>> RemoveImages(const std::vector<OwnedImage>& digests);

  // A new version, not yet active, of a new or existing function; returns it with id and number.
  // A `version.number` other than 0 is an old version coming back under its own number.
  Result<StoredVersion> AddPending(const FunctionKey& key, StoredVersion version);
  // Makes it the active one and forgets all but the newest `keep`. Returns what was forgotten.
  Result<std::vector<uint64_t>> Activate(uint64_t version_id, uint32_t keep);
  // Undoes AddPending.
  Status DropPending(uint64_t version_id);
  Status DeleteFunction(const FunctionKey& key);

  // Habits replace what was stored, minutes add to it; functions that are gone are passed over.
  // What is older than two weeks goes, and the oldest beyond 50,000 hours of all functions.
  Status StoreHabits(const std::vector<StoredHabit>& habits);
  // From the oldest; until `tell` fails.
  Status ForEachHour(const std::function<Status(const CallHour&)>& tell);

  // New, or with other labels.
  Status PutNamespace(const NamespaceRecord& record);
  Status DeleteNamespace(const NamespaceRecord& record);

  // kAlreadyExists: its name is taken.
  Status AddVolume(const StoredVolume& volume);
  Status SetVolumeState(uint64_t id, StoredVolume::State state);
  Status SetVolumeSize(uint64_t id, uint64_t bytes);
  Status DeleteVolume(uint64_t id);

  // Creates it, or replaces what it holds.
  Status PutSecret(const StoredSecret& secret);
  Result<StoredSecret> Secret(const FunctionKey& key);
  Result<int64_t> CountSecrets();
  Status DeleteSecret(const FunctionKey& key);

  // New, or with another role or state; not the password.
  Status PutUser(const User& user);
  Status DeleteUser(const std::string& name);  // with their keys
  // Together with the end of all that the user signed in for. `hash` may be "".
  Status SetPassword(const std::string& user, const std::string& hash);
  // In the place of those.
  Status AddKey(const ApiKey& key, const std::vector<std::string>& replaced_ids);
  Status DeleteKey(const std::string& id);
  // Keys that are gone are passed over.
  Status NoteKeyUses(const std::vector<KeyUse>& uses);

 private:
  StateStore(std::unique_ptr<Database> database, const std::string& data_dir)
      : database_(std::move(database)), ballast_(data_dir) {}
  static Result<std::unique_ptr<StateStore>> OpenOnce(const std::string& data_dir);
  // Runs a change that frees something; on a full disk once more, in the ballast's room.
  template <typename Change>
  auto Freeing(Change change) -> decltype(change());
  Result<Statement*> Prepared(const char* sql) { return database_->Prepared(sql); }
  Status RunOwned(const char* sql, const OwnedImage& image);
  Status RunInt(const char* sql, uint64_t parameter);
  Status StoreImage(const ImageRecord& image, int64_t now_unix_ms);
  Status LoadImages(StoredState& state);
  Status LoadFunctions(StoredState& state);
  Status LoadVolumes(StoredState& state);
  Status LoadSecrets(StoredState& state);
  Status LoadHabits(StoredState& state);
  Status LoadNamespaces(StoredState& state);
  Status LoadAccounts(StoredState& state);
  Status StoreHabit(int64_t function_id, const Learned& learned);
  Status StoreMinutes(int64_t function_id, const std::vector<MinuteOfCalls>& minutes);
  Result<HourOfCalls> HourOf(int64_t function_id, int64_t hour);
  Status PruneHistory(Learned::WallTime now);
  Result<int64_t> FunctionId(const FunctionKey& key);
  Result<std::vector<std::string>> NamesOf(const ImageRecord& image);
  Result<std::vector<uint64_t>> Prune(int64_t function_id, uint32_t keep);
  Status TouchImagesOf(int64_t function_id);

  std::unique_ptr<Database> database_;
  Ballast ballast_;
  int64_t pruned_hour_ = -1;
};

template <typename Change>
auto StateStore::Freeing(Change change) -> decltype(change()) {
  auto done = change();
  if (!done.ok() && done.error().code == Code::kNoSpace && ballast_.Drop()) {
    done = change();
    // What the log took comes back with it: rows that go need no new room in the file.
    const Status written = database_->Execute("PRAGMA wal_checkpoint(TRUNCATE)");
    if (!written.ok()) LogWarning(written.error().message);
  }
  ballast_.Keep();
  return done;
}

}  // namespace pulga
