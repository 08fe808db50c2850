#include "runtime/daemon/keeper_link.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"

namespace pulga {
namespace {
constexpr size_t kMaxMessageBytes = 16;
constexpr char kReady = 'R';
constexpr char kLauncher = 'L';
}  // namespace

KeeperLink::KeeperLink(EventLoop& loop, UniqueFd socket, Events events)
    : loop_(loop), socket_(std::move(socket)), events_(std::move(events)) {}

KeeperLink::~KeeperLink() {
  if (socket_.valid()) loop_.Unwatch(socket_.fd());
}

Status KeeperLink::Start() {
  KeepSpare();
  PULGA_RETURN_IF_ERROR(SetNonBlocking(socket_.fd()));
  return loop_.Watch(socket_.fd(), EPOLLIN, [this](uint32_t) { OnReadable(); });
}

void KeeperLink::TellReady() const {
  const Status sent = socket_.SendPod(kReady);
  if (!sent.ok()) LogWarning("tell the keeper: " + sent.error().message);
}

void KeeperLink::KeepSpare() {
  if (!spare_.valid()) spare_ = UniqueFd(fcntl(socket_.fd(), F_DUPFD_CLOEXEC, 0));
}

void KeeperLink::OnReadable() {
  spare_.Reset();  // what comes is a descriptor, also when all others are taken
  auto message = socket_.Receive(kMaxMessageBytes);
  KeepSpare();
  if (!message.ok() && message.error().sys_errno == EAGAIN) return;
  if (!message.ok() && message.error().code == Code::kTooLarge) {
    return LogWarning("the keeper sent something unknown");
  }
  if (!message.ok() || message->bytes.empty()) {
    loop_.Unwatch(socket_.fd());
    (void)socket_.TakeFd();
    spare_.Reset();
    events_.on_gone();
    return;
  }
  if (message->fds_lost) {
    // That launcher sees the end of its socket and ends, and the keeper sends the next one's.
    return LogWarning(NoDescriptorFree("receive the launcher's socket").message);
  }
  if (message->bytes[0] != kLauncher || message->fds.size() != 1) {
    return LogWarning("the keeper sent something unknown");
  }
  events_.on_launcher(std::move(message->fds.front()));
}

}  // namespace pulga
