#include "sandbox/launcher_client.h"

#include <cerrno>

#include "base/file_io.h"
#include "base/text.h"
#include "sandbox/spawner_client.h"

namespace pulga {
namespace {

constexpr size_t kMaxReply = 16 * 1024;
constexpr size_t kMaxListedLayers = 1 << 16;

Error LauncherGone() { return Error{Code::kUnavailable, 0, "the launcher is not there"}; }

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

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> out;
  for (std::string_view line : Split(text, '\n')) {
    if (!line.empty()) out.emplace_back(line);
  }
  return out;
}

}  // namespace

LauncherClient::~LauncherClient() {
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
  socket_ = MessageSocket();
  // Each callback may destroy spawners or make calls, which fail at once now.
  while (!spawners_.empty()) {
    SpawnerClient* spawner = spawners_.back();
    spawners_.pop_back();
    spawner->Gone(error);
  }
  LaunchReply reply;
  reply.status = error;
  auto pending = std::exchange(pending_, {});
  for (auto& [request, done] : pending) done(reply, {});
  if (on_gone_) on_gone_();
}

void LauncherClient::OnReadable() {
  while (socket_.valid()) {
    auto message = socket_.Receive(kMaxReply);
    if (!message.ok() && message.error().sys_errno == EAGAIN) return;
    if (!message.ok() || message->bytes.empty()) return Lose("the launcher died");
    const auto reply = DecodeReply(message->bytes);
    if (!reply.ok()) return Lose("the launcher sent nonsense");
    auto node = pending_.extract(reply->request);
    if (node.empty()) continue;
    if (!message->fds_lost) {
      node.mapped()(*reply, std::move(message->fds));
      continue;
    }
    LaunchReply failed = *reply;
    failed.status = NoDescriptorFree("receive the launcher's reply");
    node.mapped()(failed, {});
  }
}

void LauncherClient::Call(const WireWriter& message, uint64_t request, ReplyCallback done,
                          std::span<const int> fds) {
  const Status sent = socket_.valid() ? socket_.Send(message.bytes(), fds) : Status(LauncherGone());
  if (sent.ok()) {
    pending_[request] = std::move(done);
    return;
  }
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
  const uint64_t request = next_request_++;
  const auto on_reply = [this, &events, id = spec.version_id, slots = spec.slots,
                         done = std::move(done)](const LaunchReply& reply,
                                                 std::vector<UniqueFd> fds) {
    if (!reply.status.ok()) {
      // It was built, but its descriptors found no place here.
      if (reply.status.error().sys_errno == EMFILE) Drop(id, nullptr);
      return done(reply.status.error());
    }
    if (fds.size() != 2) return done(Error{Code::kInternal, 0, "the launcher sent no spawner"});
    SpawnerClient::Parts parts;
    parts.version_id = id;
    parts.slots = slots;
    parts.socket = std::move(fds[0]);
    parts.records = std::move(fds[1]);
    parts.warnings = Lines(reply.text);
    auto spawner = SpawnerClient::Create(loop_, *this, events, std::move(parts));
    if (!spawner.ok()) {
      Drop(id, nullptr);
      return done(spawner.error());
    }
    spawners_.push_back(spawner->get());
    done(std::unique_ptr<Spawner>(std::move(*spawner)));
  };
  Call(EncodeBuildVersion(request, spec), request, on_reply);
}

void LauncherClient::Forget(const SpawnerClient* spawner) {
  std::erase(spawners_, spawner);
  if (socket_.valid()) CallSlot(LaunchKind::kDropVersion, {spawner->version_id(), 0, 0}, nullptr);
}

void LauncherClient::Freeze(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) {
  CallSlot(LaunchKind::kFreeze, {version_id, slot, 0}, std::move(done));
}

void LauncherClient::Thaw(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) {
  CallSlot(LaunchKind::kThaw, {version_id, slot, 0}, std::move(done));
}

void LauncherClient::Kill(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) {
  CallSlot(LaunchKind::kKill, {version_id, slot, 0}, std::move(done));
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
      fds);
  return request;
}

void LauncherClient::CancelUnpack(uint64_t job) {
  if (!pending_.contains(job)) return;
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

}  // namespace pulga
