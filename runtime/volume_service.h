// VolumeService: volumes and data sets, by name. Loop thread; rows are written by the storage
// thread, files made and removed by the launcher. Changes run one after the other. Making is: row
// "pending" -> file -> row "ready" -> answer; removing: row "removing" -> file -> no row: a crash
// anywhere leaves a whole volume or none. A file without any row is somebody's data whose database
// was lost: it is kept and reported.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/work_queue.h"
#include "runtime/image_catalog.h"
#include "runtime/op_queue.h"
#include "runtime/state_store.h"
#include "runtime/volume.h"
#include "sandbox/access_spec.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {

// What the daemon built; all of it outlives the service.
struct VolumeParts {
  EventLoop& loop;
  const Clock& clock;
  WorkQueue& storage;
  StateStore& store;  // used on `storage` only
  ImageCatalog& catalog;
  VolumeHost& host;
  std::string data_dir;
  // Names of the functions whose active version has it.
  std::function<std::vector<std::string>(const FunctionKey& volume)> users;
};

class VolumeService {
 public:
  VolumeService(VolumeParts parts, uint64_t reserve_bytes);

  // The disk keeps so much for everything else.
  void SetReserve(uint64_t reserve_bytes) { reserve_bytes_ = reserve_bytes; }
  void Load(const std::vector<StoredVolume>& volumes);
  // Ends what a crash left half done; for each new launcher.
  void Sweep();

  void Put(const FunctionKey& key, const VolumeWish& wish,
           std::function<void(Result<VolumePut>)> done);
  // Also while functions use it. kInvalidArgument, kNoSpace: it is as it was.
  void Resize(const FunctionKey& key, uint64_t bytes, std::function<void(Result<VolumeView>)> done);
  // kAlreadyExists while a function has it, kNotFound.
  void Remove(const FunctionKey& key, std::function<void(Status)> done);
  void List(std::function<void(Result<VolumeList>)> done);
  void Show(const FunctionKey& key, std::function<void(Result<VolumeView>)> done);

  // Before a deploy: makes those that are not there and have a size. What `volumes` name can not be
  // removed while the token lives.
  using Hold = std::shared_ptr<void>;
  void Ensure(const FunctionKey& function, const std::vector<VolumeMount>& volumes,
              std::function<void(Result<Hold>)> done);
  // Names to what the launcher knows: ids, and the layers of data sets. Pure.
  Result<std::vector<VolumeMount>> Resolve(const FunctionKey& function,
                                           std::vector<VolumeMount> volumes) const;
  // "data set models", or "" when no data set is this image.
  std::string UserOf(const std::string& image_digest) const;

 private:
  struct Making;
  using MakingPtr = std::shared_ptr<Making>;

  const StoredVolume* Find(const FunctionKey& key) const;
  Result<VolumePut> Existing(const StoredVolume& there, const VolumeWish& wish) const;
  Result<StoredVolume> Plan(const FunctionKey& key, const VolumeWish& wish) const;
  void PutNow(const FunctionKey& key, const VolumeWish& wish,
              std::function<void(Result<VolumePut>)> done);
  void Complete(VolumePut put, std::function<void(Result<VolumePut>)> done);
  void MakeFile(const MakingPtr& making);
  void MakeReady(const MakingPtr& making);
  void GiveUp(const MakingPtr& making, const Error& why);
  void Appear(const MakingPtr& making);
  void ResizeNow(const FunctionKey& key, uint64_t bytes,
                 std::function<void(Result<VolumePut>)> done);
  void StoreSize(const StoredVolume& row, uint64_t bytes, std::function<void(Status)> done);
  void RemoveNow(const FunctionKey& key, std::function<void(Status)> done);
  void RemoveFile(const StoredVolume& row, std::function<void(Status)> done);
  void SetState(const StoredVolume& row, StoredVolume::State state,
                std::function<void(Status)> done);
  void Forget(uint64_t id, std::function<void(Status)> done);
  void AdoptSizes(const std::vector<VolumeState>& on_disk);
  void SweepNow(const std::vector<VolumeState>& on_disk, OpQueue::Done next);
  void EnsureNext(std::shared_ptr<std::vector<VolumeMount>> wanted, const FunctionKey& function,
                  std::function<void(Status)> done);
  VolumeView ViewOf(const StoredVolume& row, const std::vector<VolumeState>& on_disk) const;
  std::string InUse(const FunctionKey& key) const;

  VolumeParts parts_;
  uint64_t reserve_bytes_;
  OpQueue ops_;
  std::map<FunctionKey, StoredVolume> volumes_;  // the ready ones
  std::map<uint64_t, StoredVolume> half_done_;   // pending and removing ones, by id
  std::shared_ptr<std::multiset<FunctionKey>> held_;
  std::set<uint64_t> unclaimed_told_;  // the log says it once
};

}  // namespace pulga
