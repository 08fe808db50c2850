#include "runtime/volume_service.h"

#include <algorithm>
#include <utility>

#include "base/file_io.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

uint64_t NewId() {
  uint64_t id = 0;
  while (id == 0) {
    FillRandom(&id, sizeof id);
    id &= INT64_MAX;  // the database knows no more
  }
  return id;
}

std::string Title(const StoredVolume& row) {
  return (row.data_set() ? "data set " : "volume ") + row.key.name;
}

Error NotThere(const FunctionKey& key) {
  return Error{Code::kNotFound, 0, "volume " + Printable(key.name, 80) + " does not exist"};
}

Status CheckSize(uint64_t bytes) {
  if (bytes >= kMinVolumeBytes && bytes <= kMaxVolumeBytes) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "size: " + FormatBytes(bytes) + " is not between " + FormatBytes(kMinVolumeBytes) +
                   " and " + FormatBytes(kMaxVolumeBytes)};
}

Status CheckRoom(const std::string& data_dir, uint64_t bytes, uint64_t reserve) {
  PULGA_ASSIGN_OR_RETURN(const uint64_t free, FreeDiskBytes(data_dir));
  if (free >= reserve && free - reserve >= bytes) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "a volume takes its size from the disk at once: " + HumanBytes(bytes) +
                   " are wanted, " + HumanBytes(free) + " are free, and " + HumanBytes(reserve) +
                   " of them are kept (reserve-bytes)"};
}

}  // namespace

struct VolumeService::Making {
  StoredVolume row;
  std::function<void(Result<VolumePut>)> done;
};

VolumeService::VolumeService(VolumeParts parts, uint64_t reserve_bytes)
    : parts_(std::move(parts)),
      reserve_bytes_(reserve_bytes),
      ops_(parts_.loop),
      held_(std::make_shared<std::multiset<FunctionKey>>()) {}

void VolumeService::Load(const std::vector<StoredVolume>& volumes) {
  for (const StoredVolume& row : volumes) {
    if (row.state == StoredVolume::State::kReady) {
      volumes_[row.key] = row;
    } else {
      half_done_[row.id] = row;
    }
  }
}

const StoredVolume* VolumeService::Find(const FunctionKey& key) const {
  const auto it = volumes_.find(key);
  return it == volumes_.end() ? nullptr : &it->second;
}

// --- what a crash or a lost launcher left

void VolumeService::Sweep() {
  ops_.Add([this](OpQueue::Done next) {
    parts_.host.ListVolumes([this, next](Result<std::vector<VolumeState>> on_disk) {
      if (on_disk.ok()) return SweepNow(*on_disk, next);
      // Without loop devices, say; whoever uses a volume is told why.
      if (!volumes_.empty() || !half_done_.empty()) LogWarning(on_disk.error().message);
      next();
    });
  });
}

void VolumeService::SweepNow(const std::vector<VolumeState>& on_disk, OpQueue::Done next) {
  std::set<uint64_t> known;
  for (const auto& [key, row] : volumes_) known.insert(row.id);
  AdoptSizes(on_disk);
  for (const VolumeState& state : on_disk) {
    if (known.contains(state.id) || half_done_.contains(state.id)) continue;
    if (!unclaimed_told_.insert(state.id).second) continue;
    LogWarning("volume file " + VolumeSource(state.id) + " (" + HumanBytes(state.file_bytes) +
               ") belongs to no volume that the database knows: it is kept");
  }
  const auto left = std::make_shared<std::vector<StoredVolume>>();
  for (const auto& [id, row] : half_done_) left->push_back(row);
  const auto step = std::make_shared<std::function<void()>>();
  *step = [this, left, next, weak = std::weak_ptr(step)] {
    if (left->empty()) return next();
    const StoredVolume row = left->back();
    left->pop_back();
    RemoveFile(row, [row, again = weak.lock()](const Status& removed) {
      if (!removed.ok()) LogWarning(Title(row) + ": " + removed.error().message);
      (*again)();
    });
  };
  (*step)();
}

// A crash came between a volume's growth and its row.
void VolumeService::AdoptSizes(const std::vector<VolumeState>& on_disk) {
  constexpr uint64_t kRounding = 1024;  // quotas count so
  for (const auto& [key, row] : volumes_) {
    for (const VolumeState& state : on_disk) {
      if (state.id != row.id || state.file_bytes / kRounding == row.bytes / kRounding) continue;
      if (!CheckSize(state.file_bytes).ok()) continue;
      StoreSize(row, state.file_bytes, [](const Status& stored) {
        if (!stored.ok()) LogWarning("store a volume's size: " + stored.error().message);
      });
    }
  }
}

// The file, if there is one, then the row. A failure leaves both to the next sweep.
void VolumeService::RemoveFile(const StoredVolume& row, std::function<void(Status)> done) {
  half_done_[row.id] = row;
  if (row.data_set()) return Forget(row.id, std::move(done));
  parts_.host.RemoveVolume(row.id, [this, id = row.id, done](const Status& removed) {
    if (removed.ok() || removed.error().code == Code::kNotFound) return Forget(id, done);
    done(removed);
  });
}

void VolumeService::Forget(uint64_t id, std::function<void(Status)> done) {
  parts_.storage.Run([&store = parts_.store, id] { return store.DeleteVolume(id); },
                     [this, id, done](Status deleted) {
                       if (deleted.ok()) half_done_.erase(id);
                       done(std::move(deleted));
                     });
}

void VolumeService::SetState(const StoredVolume& row, StoredVolume::State state,
                             std::function<void(Status)> done) {
  parts_.storage.Run(
      [&store = parts_.store, id = row.id, state] { return store.SetVolumeState(id, state); },
      std::move(done));
}

// --- making

void VolumeService::Put(const FunctionKey& key, const VolumeWish& wish,
                        std::function<void(Result<VolumePut>)> done) {
  ops_.Add([this, key, wish, done = std::move(done)](OpQueue::Done next) {
    PutNow(key, wish, [this, done, next](Result<VolumePut> put) {
      if (put.ok() && !put->volume.row.data_set()) {
        Complete(std::move(*put), done);
      } else {
        done(std::move(put));
      }
      next();
    });
  });
}

// With how the disk keeps it, when the launcher can say.
void VolumeService::Complete(VolumePut put, std::function<void(Result<VolumePut>)> done) {
  parts_.host.ListVolumes([this, put = std::move(put), done = std::move(done)](
                              const Result<std::vector<VolumeState>>& listed) mutable {
    if (listed.ok()) put.volume = ViewOf(put.volume.row, *listed);
    done(std::move(put));
  });
}

Result<VolumePut> VolumeService::Existing(const StoredVolume& there, const VolumeWish& wish) const {
  bool same = !there.data_set() && wish.bytes == there.bytes;
  if (!wish.image.empty()) {
    const auto image = parts_.catalog.Find(wish.image);
    same = image.ok() && image->digest == there.image_digest;
  }
  if (same) return VolumePut{VolumePut::Effect::kUnchanged, ViewOf(there, {})};
  const std::string is =
      there.data_set() ? "a data set of another image" : "of " + FormatBytes(there.bytes);
  return Error{Code::kAlreadyExists, 0,
               Title(there) + " exists and is " +
                   (there.data_set() && wish.image.empty() ? std::string("a data set") : is) +
                   (there.data_set() || !wish.image.empty()
                        ? ": remove it first, or choose another name"
                        : ": resize it (pulga volume resize), or choose another name")};
}

Result<StoredVolume> VolumeService::Plan(const FunctionKey& key, const VolumeWish& wish) const {
  StoredVolume row;
  row.key = key;
  row.id = NewId();
  row.created_unix_ms = UnixMillis(parts_.clock);
  if (!wish.image.empty()) {
    PULGA_ASSIGN_OR_RETURN(const ImageRecord image, parts_.catalog.Find(wish.image));
    row.image_digest = image.digest;
    row.state = StoredVolume::State::kReady;  // there is nothing to make
    return row;
  }
  PULGA_RETURN_IF_ERROR(CheckSize(wish.bytes));
  row.bytes = wish.bytes;
  PULGA_RETURN_IF_ERROR(CheckRoom(parts_.data_dir, wish.bytes, reserve_bytes_));
  return row;
}

void VolumeService::PutNow(const FunctionKey& key, const VolumeWish& wish,
                           std::function<void(Result<VolumePut>)> done) {
  if (!IsPlainName(key.name)) {
    return done(Error{Code::kInvalidArgument, 0,
                      "name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or "
                      "digit"});
  }
  if (const StoredVolume* there = Find(key)) return done(Existing(*there, wish));
  auto row = Plan(key, wish);
  if (!row.ok()) return done(row.error());
  const auto making = std::make_shared<Making>(Making{*row, std::move(done)});
  parts_.storage.Run([&store = parts_.store, row = *row] { return store.AddVolume(row); },
                     [this, making](Status added) {
                       if (!added.ok()) {
                         return making->done(Prefix("store the volume", added.error()));
                       }
                       if (making->row.data_set()) return Appear(making);
                       MakeFile(making);
                     });
}

void VolumeService::MakeFile(const MakingPtr& making) {
  half_done_[making->row.id] = making->row;
  parts_.host.CreateVolume({making->row.id, making->row.bytes, making->row.key.name},
                           [this, making](const Status& made) {
                             if (made.ok()) return MakeReady(making);
                             GiveUp(making, Prefix("make the volume", made.error()));
                           });
}

void VolumeService::MakeReady(const MakingPtr& making) {
  SetState(making->row, StoredVolume::State::kReady, [this, making](const Status& stored) {
    if (!stored.ok()) return GiveUp(making, Prefix("store the volume", stored.error()));
    half_done_.erase(making->row.id);
    Appear(making);
  });
}

void VolumeService::GiveUp(const MakingPtr& making, const Error& why) {
  RemoveFile(making->row, [making, why](const Status& removed) {
    if (!removed.ok()) LogWarning("left to the next sweep: " + removed.error().message);
    making->done(why);
  });
}

void VolumeService::Appear(const MakingPtr& making) {
  making->row.state = StoredVolume::State::kReady;
  volumes_[making->row.key] = making->row;
  LogInfo("made " + Title(making->row));
  making->done(VolumePut{VolumePut::Effect::kCreated, ViewOf(making->row, {})});
}

// --- growing

void VolumeService::Resize(const FunctionKey& key, uint64_t bytes,
                           std::function<void(Result<VolumeView>)> done) {
  ops_.Add([this, key, bytes, done = std::move(done)](OpQueue::Done next) {
    ResizeNow(key, bytes, [this, done, next](Result<VolumePut> resized) {
      next();
      if (!resized.ok()) return done(resized.error());
      Complete(std::move(*resized), [done](const Result<VolumePut>& put) { done(put->volume); });
    });
  });
}

// The disk first: what it says is adopted when the row could not be written.
void VolumeService::ResizeNow(const FunctionKey& key, uint64_t bytes,
                              std::function<void(Result<VolumePut>)> done) {
  const StoredVolume* there = Find(key);
  if (there == nullptr) return done(NotThere(key));
  const StoredVolume row = *there;
  if (row.data_set()) {
    return done(Error{Code::kInvalidArgument, 0, Title(row) + " has no size: it is an image"});
  }
  const Status possible = CheckSize(bytes);
  if (!possible.ok()) return done(possible.error());
  if (bytes > row.bytes) {
    const Status room = CheckRoom(parts_.data_dir, bytes - row.bytes, reserve_bytes_);
    if (!room.ok()) return done(room.error());
  }
  parts_.host.ResizeVolume(row.id, bytes, [this, row, bytes, done](const Status& resized) {
    if (!resized.ok()) return done(Prefix(Title(row), resized.error()));
    StoreSize(row, bytes, [this, row, done](const Status& stored) {
      if (!stored.ok()) return done(Prefix("store the volume", stored.error()));
      done(VolumePut{VolumePut::Effect::kUnchanged, ViewOf(volumes_[row.key], {})});
    });
  });
}

void VolumeService::StoreSize(const StoredVolume& row, uint64_t bytes,
                              std::function<void(Status)> done) {
  parts_.storage.Run(
      [&store = parts_.store, id = row.id, bytes] { return store.SetVolumeSize(id, bytes); },
      [this, row, bytes, done = std::move(done)](const Status& stored) {
        const auto it = volumes_.find(row.key);
        if (stored.ok() && it != volumes_.end() && it->second.id == row.id) {
          it->second.bytes = bytes;
          LogInfo(Title(row) + " has " + FormatBytes(bytes) + " now");
        }
        done(stored);
      });
}

// --- removing

std::string VolumeService::InUse(const FunctionKey& key) const {
  const std::vector<std::string> users = parts_.users(key);
  if (!users.empty()) return "function " + Join(users, ", function ");
  return held_->contains(key) ? "a function being deployed" : "";
}

void VolumeService::Remove(const FunctionKey& key, std::function<void(Status)> done) {
  ops_.Add([this, key, done = std::move(done)](OpQueue::Done next) {
    RemoveNow(key, [done, next](Status removed) {
      done(std::move(removed));
      next();
    });
  });
}

void VolumeService::RemoveNow(const FunctionKey& key, std::function<void(Status)> done) {
  const StoredVolume* there = Find(key);
  if (there == nullptr) return done(NotThere(key));
  const StoredVolume row = *there;
  const std::string user = InUse(key);
  if (!user.empty()) {
    return done(Error{Code::kAlreadyExists, 0, Title(row) + " is in use by " + user});
  }
  SetState(row, StoredVolume::State::kRemoving, [this, row, done](const Status& stored) {
    if (!stored.ok()) return done(stored);
    volumes_.erase(row.key);
    RemoveFile(row, [this, row, done](const Status& removed) {
      if (removed.ok()) LogInfo("removed " + Title(row));
      if (removed.ok() || removed.error().code != Code::kAlreadyExists) {
        if (!removed.ok()) LogWarning("left to the next sweep: " + removed.error().message);
        return done(OkStatus());  // its row says that it goes
      }
      // Instances that are ending still write to it: it was not its time.
      SetState(row, StoredVolume::State::kReady, [this, row, done](const Status& back) {
        if (!back.ok()) return done(back);
        half_done_.erase(row.id);
        volumes_[row.key] = row;
        done(Error{Code::kAlreadyExists, 0,
                   Title(row) + " is in use by instances that are ending: try again"});
      });
    });
  });
}

// --- looking

VolumeView VolumeService::ViewOf(const StoredVolume& row,
                                 const std::vector<VolumeState>& on_disk) const {
  VolumeView view;
  view.row = row;
  view.used_by = parts_.users(row.key);
  if (row.data_set()) {
    const auto image = parts_.catalog.ByDigest(row.image_digest);
    if (image.ok() && !image->refs.empty()) view.image_ref = image->refs.front();
    view.trouble = image.ok() ? image->trouble : image.error().message;
    return view;
  }
  for (const VolumeState& state : on_disk) {
    if (state.id == row.id) view.state = state;
  }
  return view;
}

void VolumeService::List(std::function<void(Result<VolumeList>)> done) {
  parts_.host.ListVolumes([this, done = std::move(done)](Result<std::vector<VolumeState>> listed) {
    // What there is can be told without a launcher, only not how full it is.
    const std::vector<VolumeState> on_disk = listed.ok() ? *listed : std::vector<VolumeState>();
    VolumeList list;
    std::set<uint64_t> known;
    for (const auto& [key, row] : volumes_) {
      VolumeView view = ViewOf(row, on_disk);
      if (listed.ok() && !row.data_set() && !view.state) view.trouble = "its file is missing";
      if (view.state && view.state->damaged) {
        view.trouble = view.state->storage == VolumeStorage::kProjectQuota
                           ? "its quota is gone, or its file system is mounted without"
                           : "its file system is damaged";
      }
      known.insert(row.id);
      list.volumes.push_back(std::move(view));
    }
    for (const VolumeState& state : on_disk) {
      if (!known.contains(state.id) && !half_done_.contains(state.id)) {
        list.unclaimed.push_back(state);
      }
    }
    done(std::move(list));
  });
}

void VolumeService::Show(const FunctionKey& key, std::function<void(Result<VolumeView>)> done) {
  if (Find(key) == nullptr) return done(NotThere(key));
  List([key, done = std::move(done)](Result<VolumeList> list) {
    if (!list.ok()) return done(list.error());
    for (VolumeView& view : list->volumes) {
      if (view.row.key == key) return done(std::move(view));
    }
    done(NotThere(key));
  });
}

// --- deploys

void VolumeService::Ensure(const FunctionKey& function, const std::vector<VolumeMount>& volumes,
                           std::function<void(Result<Hold>)> done) {
  std::vector<FunctionKey> keys;
  for (const VolumeMount& volume : volumes) {
    if (volume.kind == VolumeKind::kHost) continue;
    keys.push_back({function.owner, function.name_space, volume.source});
    const StoredVolume* there = Find(keys.back());
    if (there != nullptr && !there->data_set() && volume.size_bytes > there->bytes) {
      return done(Error{Code::kInvalidArgument, 0,
                        "volumes: volume " + volume.source + " exists and has " +
                            FormatBytes(there->bytes) + ", not " + FormatBytes(volume.size_bytes) +
                            ": leave \"size\" out, or resize it (pulga volume resize)"});
    }
  }
  held_->insert(keys.begin(), keys.end());
  const Hold hold(nullptr, [held = held_, keys](void*) {
    for (const FunctionKey& key : keys) held->erase(held->find(key));
  });
  EnsureNext(std::make_shared<std::vector<VolumeMount>>(volumes), function,
             [hold, done = std::move(done)](const Status& there) {
               if (!there.ok()) return done(there.error());
               done(hold);
             });
}

void VolumeService::EnsureNext(std::shared_ptr<std::vector<VolumeMount>> wanted,
                               const FunctionKey& function, std::function<void(Status)> done) {
  std::erase_if(*wanted, [&](const VolumeMount& volume) {
    return volume.kind != VolumeKind::kVolume || volume.size_bytes == 0 ||
           Find({function.owner, function.name_space, volume.source}) != nullptr;
  });
  if (wanted->empty()) return done(OkStatus());
  const VolumeMount next = wanted->back();
  Put({function.owner, function.name_space, next.source}, {next.size_bytes, ""},
      [this, wanted, function, next, done = std::move(done)](const Result<VolumePut>& put) {
        if (!put.ok()) return done(Prefix("volume " + next.source, put.error()));
        EnsureNext(wanted, function, done);
      });
}

Result<std::vector<VolumeMount>> VolumeService::Resolve(const FunctionKey& function,
                                                        std::vector<VolumeMount> volumes) const {
  for (VolumeMount& volume : volumes) {
    if (volume.kind == VolumeKind::kHost) continue;
    const bool set = volume.kind == VolumeKind::kDataSet;
    const std::string what = (set ? "data set " : "volume ") + volume.source;
    const StoredVolume* row = Find({function.owner, function.name_space, volume.source});
    if (row == nullptr) {
      return Error{Code::kInvalidArgument, 0,
                   "volumes: " + what + " does not exist: " +
                       (set ? "make it (pulga volume create)"
                            : "make it (pulga volume create), or give a \"size\"")};
    }
    if (row->data_set() != set) {
      return Error{Code::kInvalidArgument, 0,
                   "volumes: " + volume.source + " is a " +
                       (set ? "volume: write \"name\"" : "data set: write \"data_set\"") +
                       " in its entry"};
    }
    volume.source = VolumeSource(row->id);
    if (!set) continue;
    PULGA_ASSIGN_OR_RETURN(const ImageRecord image, parts_.catalog.ByDigest(row->image_digest));
    if (!image.trouble.empty()) {
      return Error{Code::kUnavailable, 0, what + ": its image " + image.trouble};
    }
    for (const LayerRecord& layer : image.layers) volume.layers.push_back(layer.chain_id);
  }
  return volumes;
}

std::string VolumeService::UserOf(const std::string& image_digest) const {
  for (const auto& [key, row] : volumes_) {
    if (row.data_set() && row.image_digest == image_digest) return Title(row);
  }
  return "";
}

}  // namespace pulga
