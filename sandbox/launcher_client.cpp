#include "sandbox/launcher_client.h"

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "sandbox/grants_file.h"
#include "sandbox/isolation.h"
#include "sandbox/spawner_client.h"
#include "sandbox/volumes/volume_jobs.h"

namespace pulga {
namespace {

constexpr size_t kMaxReply = 16 * 1024;
constexpr size_t kMaxListedLayers = 1 << 16;
constexpr size_t kMaxGrantsText = 2 * kMaxGrantsBytes;  // with the numbers of its lines

Error LauncherGone() { return Error{Code::kUnavailable, 0, "the launcher is not there"}; }

// Its end is not heard of yet.
Error Unsent(const Error& why) {
  if (why.sys_errno != EPIPE && why.sys_errno != ECONNRESET) return why;
  return {Code::kUnavailable, why.sys_errno,
          "the launcher has just ended and the next one starts; try again (" + why.message + ")"};
}

Result<std::vector<LayerId>> ReadLayerList(int fd) {
  std::vector<LayerId> out;
  LayerId id;
  PULGA_RETURN_IF_ERROR(lseek(fd, 0, SEEK_SET) == 0 ? OkStatus() : LastError("layer list"));
  PULGA_ASSIGN_OR_RETURN(const std::string raw, ReadFd(fd, kMaxListedLayers * id.bytes.size()));
  for (size_t at = 0; at + id.bytes.size() <= raw.size(); at += id.bytes.size()) {
    memcpy(id.bytes.data(), raw.data() + at, id.bytes.size());
    out.push_back(id);
  }
  return out;
}

Result<std::vector<VolumeState>> ReadVolumeList(int fd) {
  std::vector<VolumeState> out;
  VolumeRecord record = {};
  if (lseek(fd, 0, SEEK_SET) != 0) return LastError("volume list");
  PULGA_ASSIGN_OR_RETURN(const std::string raw, ReadFd(fd, kMaxVolumeFiles * sizeof record));
  for (size_t at = 0; at + sizeof record <= raw.size(); at += sizeof record) {
    memcpy(&record, raw.data() + at, sizeof record);
    out.push_back({record.id, record.file_bytes, record.total_bytes, record.free_bytes,
                   (record.flags & kVolumeMounted) != 0, (record.flags & kVolumeDamaged) != 0,
                   (record.flags & kVolumeQuota) != 0 ? VolumeStorage::kProjectQuota
                                                      : VolumeStorage::kLoopFile});
  }
  return out;
}

}  // namespace

LauncherClient::~LauncherClient() {
  loop_.Cancel(look_timer_);
  if (socket_.valid()) loop_.Unwatch(socket_.fd());
  for (SpawnerClient* spawner : std::exchange(spawners_, {})) spawner->Gone(LauncherGone());
}

Status LauncherClient::AdoptLauncher(UniqueFd socket) {
  if (socket_.valid()) Lose("the launcher was replaced");
  PULGA_RETURN_IF_ERROR(SetNonBlocking(socket.get()));
  PULGA_RETURN_IF_ERROR(loop_.Watch(socket.get(), EPOLLIN, [this](uint32_t) { OnReadable(); }));
  socket_ = MessageSocket(std::move(socket));
  return OkStatus();
}

void LauncherClient::Lose(const char* why) {
  const Error error{Code::kUnavailable, 0, why};
  loop_.Unwatch(socket_.fd());
  outgoing_.Clear();
  socket_ = MessageSocket();
  network_open_ = false;
  if (on_gateway_) on_gateway_(UniqueFd());
  // Each callback may destroy spawners or make calls, which fail at once now.
  while (!spawners_.empty()) {
    SpawnerClient* spawner = spawners_.back();
    spawners_.pop_back();
    spawner->Gone(error);
  }
  LaunchReply reply;
  reply.status = error;
  auto pending = std::exchange(pending_, {});
  question_ = 0;
  for (auto& [request, waiting] : pending) waiting.done(reply, {});
  grants_ = Grants();
  if (on_grants_) on_grants_({});
  if (on_gone_) on_gone_();
}

void LauncherClient::OnGrants(std::span<const UniqueFd> fds) {
  if (fds.size() != 1 || lseek(fds[0].get(), 0, SEEK_SET) != 0) return;
  const auto text = ReadFd(fds[0].get(), kMaxGrantsText);
  if (!text.ok()) return;
  const auto lines = DecodeGrants(*text);
  grants_ = GrantsOf(lines);
  if (on_grants_) on_grants_(lines);
}

void LauncherClient::OnReadable() {
  while (socket_.valid()) {
    auto message = socket_.Receive(kMaxReply);
    if (!message.ok() && message.error().sys_errno == EAGAIN) return;
    if (!message.ok() || message->bytes.empty()) return Lose("the launcher died");
    const auto reply = DecodeReply(message->bytes);
    if (!reply.ok()) return Lose("the launcher sent nonsense");
    if (reply->request == kGrantsRequest) {
      OnGrants(message->fds);
      continue;
    }
    auto node = pending_.extract(reply->request);
    if (node.empty()) continue;
    if (!message->fds_lost) {
      node.mapped().done(*reply, std::move(message->fds));
      continue;
    }
    LaunchReply failed = *reply;
    failed.status = NoDescriptorFree("receive the launcher's reply");
    node.mapped().done(failed, {});
  }
}

void LauncherClient::LookSoon() {
  if (look_timer_ != 0) return;
  look_timer_ = loop_.CallAfter(patience_ / 3, [this] {
    look_timer_ = 0;
    LookForSilence();
  });
}

void LauncherClient::LookForSilence() {
  if (pending_.empty()) return;
  const TimePoint now = loop_.Now();
  if (question_ == 0) {
    // Answered at once, whatever it works on: there is no such job.
    question_ = next_request_++;
    asked_ = now;
    Call(EncodeCancelUnpack(question_, {0}), question_,
         [this](const LaunchReply&, const std::vector<UniqueFd>&) { question_ = 0; });
  } else if (now - asked_ >= patience_ / 2) {
    GiveUpOverdue(now);
  }
  LookSoon();
}

// What was sent stays in its socket, and what takes it back goes behind it. Late answers find
// nobody, and their descriptors are closed.
void LauncherClient::GiveUpOverdue(TimePoint now) {
  std::vector<uint64_t> overdue;
  for (const auto& [request, waiting] : pending_) {
    if (request != question_ && now - waiting.sent >= patience_) overdue.push_back(request);
  }
  if (overdue.empty()) return;
  const auto waited = FormatDuration(patience_);
  LogWarning("the launcher has not answered for " + waited + ": " + std::to_string(overdue.size()) +
             " requests to it are given up");
  LaunchReply reply;
  reply.status = Error{Code::kTimeout, ETIMEDOUT,
                       "the launcher did not answer within " + waited +
                           ": it is stopped, or this board is overloaded; try again later"};
  for (const uint64_t request : overdue) {
    const auto node = pending_.extract(request);
    if (node.empty()) continue;
    if (node.mapped().take_back) node.mapped().take_back();
    node.mapped().done(reply, {});
  }
}

void LauncherClient::Call(const WireWriter& message, uint64_t request, ReplyCallback done,
                          std::span<const int> fds, std::function<void()> take_back) {
  Status sent = socket_.valid() ? outgoing_.Send(message.bytes(), fds) : Status(LauncherGone());
  if (sent.ok()) {
    pending_[request] = {std::move(done), loop_.Now(), std::move(take_back)};
    return LookSoon();
  }
  sent = Unsent(sent.error());
  loop_.Post([sent, done = std::move(done)] {
    LaunchReply reply;
    reply.status = sent;
    done(reply, {});
  });
}

void LauncherClient::CallSlot(LaunchKind kind, const SlotBody& body,
                              std::function<void(Status)> done) {
  const uint64_t request = next_request_++;
  Call(EncodeSlot(kind, request, body), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>&) {
         if (done) done(reply.status);
       });
}

void LauncherClient::BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) {
  const Status valid = CheckVersionSpec(spec);
  if (!valid.ok()) {
    loop_.Post([valid, done = std::move(done)] { done(valid.error()); });
    return;
  }
  if (spec.access.network.mode != NetworkMode::kEgress || network_open_) {
    return Build(spec, events, std::move(done));
  }
  OpenNetwork([this, spec, &events, done = std::move(done)](const Status& opened) {
    if (!opened.ok()) return done(opened.error());
    Build(spec, events, done);
  });
}

void LauncherClient::OpenNetwork(std::function<void(Status)> done) {
  network_waiters_.push_back(std::move(done));
  if (network_waiters_.size() > 1) return;
  const uint64_t request = next_request_++;
  Call(EncodeOpenNetwork(request, network_plan_), request,
       [this](const LaunchReply& reply, std::vector<UniqueFd> fds) {
         Status opened = reply.status;
         if (opened.ok() && fds.size() != 1) {
           opened = Error{Code::kInternal, 0, "the launcher sent no gateway"};
         }
         network_open_ = opened.ok();
         if (opened.ok() && on_gateway_) on_gateway_(std::move(fds[0]));
         for (auto& waiter : std::exchange(network_waiters_, {})) waiter(opened);
       });
}

void LauncherClient::Build(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) {
  const uint64_t request = next_request_++;
  const auto on_reply = [this, &events, id = spec.version_id, slots = spec.slots,
                         swap = spec.limits.swap_bytes, wishes = Wishes{spec.function, spec.access},
                         owner = spec.owner, secrets = spec.secrets, done = std::move(done)](
                            const LaunchReply& reply, std::vector<UniqueFd> fds) {
    if (!reply.status.ok()) {
      // It was built, but its descriptors found no place here.
      if (reply.status.error().sys_errno == EMFILE) Drop(id, nullptr);
      return done(reply.status.error());
    }
    if (fds.size() != 2) return done(Error{Code::kInternal, 0, "the launcher sent no spawner"});
    SpawnerClient::Parts parts;
    parts.version_id = id;
    parts.slots = slots;
    parts.swap_limit = swap;
    parts.socket = std::move(fds[0]);
    parts.records = std::move(fds[1]);
    parts.report = reply.text;
    parts.wishes = wishes;
    parts.secrets = {id, owner, wishes.function, {}};
    for (const SecretFile& secret : secrets) parts.secrets.names.push_back(secret.name);
    auto spawner = SpawnerClient::Create(loop_, *this, events, std::move(parts));
    if (!spawner.ok()) {
      Drop(id, nullptr);
      return done(spawner.error());
    }
    spawners_.push_back(spawner->get());
    const Status given = secrets.empty() ? OkStatus() : (*spawner)->SetSecrets(secrets);
    if (!given.ok()) return done(given.error());
    done(std::unique_ptr<Spawner>(std::move(*spawner)));
  };
  Call(EncodeBuildVersion(request, spec), request, on_reply, {},
       [this, id = spec.version_id] { Drop(id, nullptr); });
}

std::vector<SecretUse> LauncherClient::SecretUses() const {
  std::vector<SecretUse> uses;
  for (const SpawnerClient* spawner : spawners_) {
    if (!spawner->secrets().names.empty()) uses.push_back(spawner->secrets());
  }
  return uses;
}

void LauncherClient::SetSecrets(uint64_t version_id, const std::vector<SecretFile>& secrets) {
  for (SpawnerClient* spawner : spawners_) {
    if (spawner->version_id() != version_id) continue;
    const Status sent = spawner->SetSecrets(secrets);
    if (!sent.ok()) {
      LogWarning("secrets of " + spawner->secrets().function + ": " + sent.error().message);
    }
    return;
  }
}

void LauncherClient::Forget(const SpawnerClient* spawner) {
  std::erase(spawners_, spawner);
  if (socket_.valid()) CallSlot(LaunchKind::kDropVersion, {spawner->version_id(), 0, 0}, nullptr);
}

void LauncherClient::Kill(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) {
  CallSlot(LaunchKind::kKill, {version_id, slot, 0}, std::move(done));
}

void LauncherClient::Reclaim(uint64_t version_id, uint16_t slot, Spawner::ReclaimDone done) {
  const uint64_t request = next_request_++;
  Call(EncodeSlot(LaunchKind::kReclaim, request, {version_id, slot, 0}), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>&) {
         if (!reply.status.ok()) return done(reply.status.error());
         done(DecodeReclaimed(reply.text));
       });
}

void LauncherClient::CancelReclaim(uint64_t version_id, uint16_t slot) {
  CallSlot(LaunchKind::kCancelReclaim, {version_id, slot, 0}, nullptr);
}

void LauncherClient::StopSlot(uint64_t version_id, uint16_t slot) {
  CallSlot(LaunchKind::kStopSlot, {version_id, slot, 0}, nullptr);
}

void LauncherClient::ContinueSlot(uint64_t version_id, uint16_t slot) {
  CallSlot(LaunchKind::kContinueSlot, {version_id, slot, 0}, nullptr);
}

void LauncherClient::Resize(uint64_t version_id, const InstanceSize& size,
                            std::function<void(Status)> done) {
  const uint64_t request = next_request_++;
  Call(EncodeResize(request, {version_id, size.memory_bytes, size.cpu_millis, 0}), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>&) {
         done(reply.status);
       });
}

void LauncherClient::Drop(uint64_t version_id, std::function<void(Status)> done) {
  CallSlot(LaunchKind::kDropVersion, {version_id, 0, 0}, std::move(done));
}

uint64_t LauncherClient::RunUnpack(UnpackJob job, std::function<void(Status)> done) {
  const uint64_t request = next_request_++;
  if (job.parents.size() > kMaxLayers || job.request.size() > kMaxUnpackRequestBytes) {
    loop_.Post([done = std::move(done)] {
      done(Error{Code::kTooLarge, 0, "unpack: more than 128 layers, or too large a request"});
    });
    return request;
  }
  std::vector<int> fds;
  for (const UniqueFd* fd : {&job.input, &job.output, &job.channel}) {
    if (fd->valid()) fds.push_back(fd->get());
  }
  Call(
      EncodeUnpack(request, job), request,
      [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>&) {
        done(reply.status);
      },
      fds, [this, request] { SendCancelUnpack(request); });
  return request;
}

void LauncherClient::CancelUnpack(uint64_t job) {
  if (pending_.contains(job)) SendCancelUnpack(job);
}

void LauncherClient::SendCancelUnpack(uint64_t job) {
  const uint64_t request = next_request_++;
  Call(EncodeCancelUnpack(request, {job}), request,
       [](const LaunchReply&, const std::vector<UniqueFd>&) {});
}

void LauncherClient::ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) {
  const uint64_t request = next_request_++;
  Call(EncodeListLayers(request), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>& fds) {
         if (!reply.status.ok()) return done(reply.status.error());
         if (fds.size() != 1) return done(Error{Code::kInternal, 0, "no list of layers came"});
         done(ReadLayerList(fds[0].get()));
       });
}

void LauncherClient::CallVolume(LaunchKind kind, const VolumeRequestBody& body,
                                std::function<void(Status)> done) {
  const uint64_t request = next_request_++;
  Call(EncodeVolume(kind, request, body), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>&) {
         done(reply.status);
       });
}

void LauncherClient::CreateVolume(const NewVolume& volume, std::function<void(Status)> done) {
  VolumeRequestBody body = {};
  body.id = volume.id;
  body.bytes = volume.bytes;
  volume.name.copy(body.label, sizeof body.label);
  CallVolume(LaunchKind::kCreateVolume, body, std::move(done));
}

void LauncherClient::ResizeVolume(uint64_t id, uint64_t bytes, std::function<void(Status)> done) {
  VolumeRequestBody body = {};
  body.id = id;
  body.bytes = bytes;
  CallVolume(LaunchKind::kResizeVolume, body, std::move(done));
}

void LauncherClient::RemoveVolume(uint64_t id, std::function<void(Status)> done) {
  VolumeRequestBody body = {};
  body.id = id;
  CallVolume(LaunchKind::kRemoveVolume, body, std::move(done));
}

void LauncherClient::ListVolumes(std::function<void(Result<std::vector<VolumeState>>)> done) {
  const uint64_t request = next_request_++;
  Call(EncodeVolume(LaunchKind::kListVolumes, request, {}), request,
       [done = std::move(done)](const LaunchReply& reply, const std::vector<UniqueFd>& fds) {
         if (!reply.status.ok()) return done(reply.status.error());
         if (fds.size() != 1) return done(Error{Code::kInternal, 0, "no list of volumes came"});
         done(ReadVolumeList(fds[0].get()));
       });
}

}  // namespace pulga
