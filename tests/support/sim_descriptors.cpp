#include "tests/support/sim_descriptors.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"

namespace pulga::testing {
namespace {

constexpr int kFirst = 1 << 24;  // no process has so many of the kernel's
constexpr size_t kPipeBytes = 64 * 1024;
constexpr size_t kSocketBytes = 208 * 1024;

constexpr uint32_t kIn = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kOut = EPOLLOUT | EPOLLWRNORM;

DescriptorTable* table = nullptr;

int Fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

class DescriptorTable {
 public:
  enum class Kind : uint8_t { kFree, kPipeReader, kPipeWriter, kSocket, kEvent, kEpoll, kNull };

  int Make(Kind kind) {
    if (free_.empty()) {
      free_.push_back(static_cast<int>(all_.size()));
      all_.emplace_back();
    }
    const int index = free_.back();
    free_.pop_back();
    ++open_;
    all_[Index(index)].kind = kind;
    return kFirst + index;
  }
  int MakePair(Kind first, Kind second, int* ends) {
    ends[0] = Make(first);
    ends[1] = Make(second);
    At(ends[0])->peer = ends[1];
    At(ends[1])->peer = ends[0];
    return 0;
  }
  int MakeEpoll() {
    PULGA_CHECK(epoll_ == -1);
    return epoll_ = Make(Kind::kEpoll);
  }

  int Close(int fd) {
    Descriptor* closed = At(fd);
    if (closed == nullptr) return Break("a descriptor is closed twice");
    if (closed->watched) Break("a descriptor is closed while it is watched");
    Forget(fd);
    if (fd == epoll_) epoll_ = -1;
    if (Descriptor* peer = At(closed->peer); peer != nullptr) {
      peer->peer = -1;
      peer->read_ended = peer->write_ended = true;
      const bool socket = closed->kind == Kind::kSocket;
      if (socket && !closed->bytes.empty()) peer->error = ECONNRESET;
      Wake(peer, socket ? 0 : kIn | kOut | EPOLLERR | EPOLLHUP);
    }
    std::string spare = std::move(closed->bytes);
    spare.clear();
    *closed = Descriptor();
    closed->bytes = std::move(spare);
    free_.push_back(fd - kFirst);
    --open_;
    return 0;
  }

  ssize_t Read(int fd, void* to, size_t capacity, int flags) {
    Descriptor* from = At(fd);
    if (from == nullptr || from->kind == Kind::kPipeWriter) return Fail(EBADF);
    if (from->kind == Kind::kNull) return 0;
    if (from->bytes.empty()) {
      if (from->error != 0) return Fail(std::exchange(from->error, 0));
      return from->read_ended ? 0 : Fail(EAGAIN);
    }
    const size_t size = std::min(capacity, from->bytes.size());
    std::memcpy(to, from->bytes.data(), size);
    if ((flags & MSG_PEEK) != 0) return static_cast<ssize_t>(size);
    const bool was_full = from->bytes.size() >= kPipeBytes;
    from->bytes.erase(0, size);
    Descriptor* peer = At(from->peer);
    const bool socket = from->kind == Kind::kSocket;
    if (peer != nullptr && (socket ? from->bytes.empty() : was_full)) Wake(peer, kOut);
    return static_cast<ssize_t>(size);
  }
  ssize_t Write(int fd, std::string_view bytes) {
    Descriptor* from = At(fd);
    if (from == nullptr || from->kind == Kind::kPipeReader) return Fail(EBADF);
    if (from->kind == Kind::kNull) return static_cast<ssize_t>(bytes.size());
    if (from->write_ended) return Fail(EPIPE);
    // An eventfd keeps what was written last: nobody here looks at the number.
    Descriptor* to = from->kind == Kind::kEvent ? from : At(from->peer);
    if (to == from) to->bytes.clear();
    const size_t room = Room(*from, *to);
    if (room == 0) return Fail(EAGAIN);
    bytes = bytes.substr(0, room);
    to->bytes.append(bytes);
    Wake(to, kIn);
    return static_cast<ssize_t>(bytes.size());
  }
  bool IsConnected(int fd) {
    const Descriptor* socket = At(fd);
    return socket != nullptr && socket->kind == Kind::kSocket && socket->peer != -1;
  }
  int TakeError(int fd) {
    Descriptor* socket = At(fd);
    return socket == nullptr ? EBADF : std::exchange(socket->error, 0);
  }

  int Control(int epoll, int what, int fd, const epoll_event* event) {
    Descriptor* watched = At(fd);
    if (epoll != epoll_ || watched == nullptr) return Fail(EBADF);
    if (watched->kind == Kind::kNull) return Fail(EPERM);
    if ((what == EPOLL_CTL_ADD) == watched->watched) {
      return Fail(watched->watched ? EEXIST : ENOENT);
    }
    if (what == EPOLL_CTL_DEL) {
      Forget(fd);
      return 0;
    }
    watched->watched = true;
    watched->event = *event;
    watched->event.events |= EPOLLERR | EPOLLHUP;
    if ((Ready(*watched) & watched->event.events) != 0) Link(watched, fd);
    return 0;
  }
  int Wait(epoll_event* events, size_t most) {
    scanned_.clear();
    scanned_.swap(ready_);
    size_t size = 0, next = 0;
    for (; next < scanned_.size() && size < most; ++next) {
      Descriptor* watched = At(scanned_[next]);
      watched->ready = false;
      const uint32_t now = Ready(*watched) & watched->event.events;
      if (now == 0) continue;
      events[size] = watched->event;
      events[size++].events = now;
      if ((watched->event.events & EPOLLET) == 0) Link(watched, scanned_[next]);
    }
    ready_.insert(ready_.begin(), scanned_.begin() + static_cast<ptrdiff_t>(next), scanned_.end());
    return static_cast<int>(size);
  }

  size_t open() const { return open_; }
  const std::string& broken() const { return broken_; }

 private:
  struct Descriptor {
    Kind kind = Kind::kFree;
    int peer = -1;      // none once it is closed
    std::string bytes;  // to be read from this one
    bool read_ended = false;
    bool write_ended = false;
    int error = 0;
    bool watched = false;
    bool ready = false;  // in the list
    epoll_event event = {};
  };

  static size_t Index(int number) { return static_cast<size_t>(number); }
  Descriptor* At(int fd) {
    const bool known = fd >= kFirst && Index(fd - kFirst) < all_.size();
    Descriptor* found = known ? &all_[Index(fd - kFirst)] : nullptr;
    return found != nullptr && found->kind != Kind::kFree ? found : nullptr;
  }
  int Break(const char* what) {
    if (broken_.empty()) broken_ = what;
    return Fail(EBADF);
  }

  static size_t Room(const Descriptor& from, const Descriptor& to) {
    const size_t all = from.kind == Kind::kSocket ? kSocketBytes : kPipeBytes;
    return all - std::min(all, to.bytes.size());
  }
  uint32_t Ready(const Descriptor& asked) {
    uint32_t ready = asked.bytes.empty() || asked.kind == Kind::kPipeWriter ? 0 : kIn;
    const Descriptor* peer = At(asked.peer);
    switch (asked.kind) {
      case Kind::kPipeReader:
        return ready | (asked.read_ended ? EPOLLHUP : 0U);
      case Kind::kPipeWriter:
        return peer == nullptr ? kOut | EPOLLERR : Room(asked, *peer) > 0 ? kOut : 0U;
      case Kind::kSocket:
        if (asked.error != 0) ready |= EPOLLERR;
        if (asked.read_ended) ready |= kIn | EPOLLRDHUP;
        if (asked.read_ended && asked.write_ended) ready |= EPOLLHUP;
        // Of its buffer it may have used a quarter.
        return ready | (peer == nullptr || peer->bytes.size() <= kSocketBytes / 4 ? kOut : 0U);
      default:
        return ready;
    }
  }
  int NumberOf(const Descriptor* of) const { return kFirst + static_cast<int>(of - all_.data()); }
  // As ep_poll_callback: `key` is what has happened, 0 for anything.
  void Wake(Descriptor* woken, uint32_t key) {
    if (!woken->watched || (key != 0 && (key & woken->event.events) == 0)) return;
    Link(woken, NumberOf(woken));
  }
  void Link(Descriptor* woken, int fd) {
    if (!std::exchange(woken->ready, true)) ready_.push_back(fd);
  }
  void Forget(int fd) {
    Descriptor* watched = At(fd);
    watched->watched = false;
    if (std::exchange(watched->ready, false)) std::erase(ready_, fd);
  }

  std::vector<Descriptor> all_;
  std::vector<int> free_;
  size_t open_ = 0;
  int epoll_ = -1;
  std::vector<int> ready_;  // epoll's list: who was woken, first come first
  std::vector<int> scanned_;
  std::string broken_;
};

SimDescriptors::SimDescriptors() : table_(std::make_unique<DescriptorTable>()) {
  PULGA_CHECK(table == nullptr);
  table = table_.get();
}
SimDescriptors::~SimDescriptors() { table = nullptr; }
size_t SimDescriptors::open() const { return table_->open(); }
const std::string& SimDescriptors::broken() const { return table_->broken(); }

}  // namespace pulga::testing

// The calls, as the linker puts them in between: ours, and behind __real_ the C library's. open64
// and fcntl64 are what open and fcntl are called on 32 bits.
namespace {
using pulga::testing::DescriptorTable;
using pulga::testing::Fail;
using pulga::testing::table;
using Kind = DescriptorTable::Kind;

bool Ours(int fd) { return fd >= pulga::testing::kFirst && table != nullptr; }
std::string_view View(const void* bytes, size_t size) {
  return {static_cast<const char*>(bytes), size};
}
bool OpensNull(const char* path) {
  return table != nullptr && std::string_view(path) == "/dev/null";
}
int SetFlags(int command) { return command == F_SETFL ? 0 : Fail(EINVAL); }  // none blocks anyway
}  // namespace

extern "C" {
int __real_close(int fd);
int __wrap_close(int fd) { return Ours(fd) ? table->Close(fd) : __real_close(fd); }

ssize_t __real_read(int fd, void* to, size_t size);
ssize_t __wrap_read(int fd, void* to, size_t size) {
  return Ours(fd) ? table->Read(fd, to, size, 0) : __real_read(fd, to, size);
}
ssize_t __real_recv(int fd, void* to, size_t size, int flags);
ssize_t __wrap_recv(int fd, void* to, size_t size, int flags) {
  return Ours(fd) ? table->Read(fd, to, size, flags) : __real_recv(fd, to, size, flags);
}
ssize_t __real_write(int fd, const void* from, size_t size);
ssize_t __wrap_write(int fd, const void* from, size_t size) {
  return Ours(fd) ? table->Write(fd, View(from, size)) : __real_write(fd, from, size);
}
ssize_t __real_send(int fd, const void* from, size_t size, int flags);
ssize_t __wrap_send(int fd, const void* from, size_t size, int flags) {
  return Ours(fd) ? table->Write(fd, View(from, size)) : __real_send(fd, from, size, flags);
}

int __real_pipe2(int* ends, int flags);
int __wrap_pipe2(int* ends, int flags) {
  if (table == nullptr) return __real_pipe2(ends, flags);
  return table->MakePair(Kind::kPipeReader, Kind::kPipeWriter, ends);
}
int __real_socketpair(int family, int type, int protocol, int* ends);
int __wrap_socketpair(int family, int type, int protocol, int* ends) {
  if (table == nullptr) return __real_socketpair(family, type, protocol, ends);
  return table->MakePair(Kind::kSocket, Kind::kSocket, ends);
}
int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags) {
  return table == nullptr ? __real_eventfd(count, flags) : table->Make(Kind::kEvent);
}
int __real_open(const char* path, int flags, mode_t mode);
int __wrap_open(const char* path, int flags, mode_t mode) {
  return OpensNull(path) ? table->Make(Kind::kNull) : __real_open(path, flags, mode);
}
int __real_open64(const char* path, int flags, mode_t mode);
int __wrap_open64(const char* path, int flags, mode_t mode) {
  return OpensNull(path) ? table->Make(Kind::kNull) : __real_open64(path, flags, mode);
}
int __real_fcntl(int fd, int command, long argument);
int __wrap_fcntl(int fd, int command, long argument) {
  return Ours(fd) ? SetFlags(command) : __real_fcntl(fd, command, argument);
}
int __real_fcntl64(int fd, int command, long argument);
int __wrap_fcntl64(int fd, int command, long argument) {
  return Ours(fd) ? SetFlags(command) : __real_fcntl64(fd, command, argument);
}

// A pair of sockets is connected from its birth, and has no port.
int __real_connect(int fd, const sockaddr* address, socklen_t size);
int __wrap_connect(int fd, const sockaddr* address, socklen_t size) {
  return Ours(fd) ? Fail(EINVAL) : __real_connect(fd, address, size);
}
int __real_getpeername(int fd, sockaddr* address, socklen_t* size);
int __wrap_getpeername(int fd, sockaddr* address, socklen_t* size) {
  if (!Ours(fd)) return __real_getpeername(fd, address, size);
  return table->IsConnected(fd) ? 0 : Fail(ENOTCONN);
}
int __real_setsockopt(int fd, int level, int name, const void* value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  return Ours(fd) ? Fail(EOPNOTSUPP) : __real_setsockopt(fd, level, name, value, size);
}
int __real_getsockopt(int fd, int level, int name, void* value, socklen_t* size);
int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* size) {
  if (!Ours(fd)) return __real_getsockopt(fd, level, name, value, size);
  if (level != SOL_SOCKET || name != SO_ERROR) return Fail(EOPNOTSUPP);
  *static_cast<int*>(value) = table->TakeError(fd);
  return 0;
}

int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags) {
  return table == nullptr ? __real_epoll_create1(flags) : table->MakeEpoll();
}
int __real_epoll_ctl(int epoll, int what, int fd, epoll_event* event);
int __wrap_epoll_ctl(int epoll, int what, int fd, epoll_event* event) {
  return Ours(epoll) ? table->Control(epoll, what, fd, event)
                     : __real_epoll_ctl(epoll, what, fd, event);
}
int __real_epoll_wait(int epoll, epoll_event* events, int most, int milliseconds);
int __wrap_epoll_wait(int epoll, epoll_event* events, int most, int milliseconds) {
  return Ours(epoll) ? table->Wait(events, static_cast<size_t>(most))
                     : __real_epoll_wait(epoll, events, most, milliseconds);
}
}  // extern "C"
