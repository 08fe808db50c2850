#include "runtime/daemon/keeper_link.h"

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
  PULGA_RETURN_IF_ERROR(SetNonBlocking(socket_.fd()));
  return loop_.Watch(socket_.fd(), EPOLLIN, [this](uint32_t) { OnReadable(); });
}

void KeeperLink::TellReady() const {
  const Status sent = socket_.SendPod(kReady);
  if (!sent.ok()) LogWarning("tell the keeper: " + sent.error().message);
}

void KeeperLink::OnReadable() {
  auto message = socket_.Receive(kMaxMessageBytes);
  if (!message.ok() && message.error().sys_errno == EAGAIN) return;
  if (!message.ok() || message->bytes.empty()) {
    loop_.Unwatch(socket_.fd());
    (void)socket_.TakeFd();
    events_.on_gone();
    return;
  }
  if (message->bytes[0] != kLauncher || message->fds.size() != 1) {
    return LogWarning("the keeper sent something unknown");
  }
  events_.on_launcher(std::move(message->fds.front()));
}

}  // namespace pulga
