#include "runtime/pipe_io.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "base/sys.h"

namespace pulga {
namespace {

Status MakePipe(UniqueFd* read_end, UniqueFd* write_end) {
  int fds[2];
  if (PULGA_SYS(pipe2, fds, O_CLOEXEC) != 0) return LastError("pipe2");
  read_end->Reset(fds[0]);
  write_end->Reset(fds[1]);
  return OkStatus();
}

Status SetOurs(int fd, int access) {
  if (PULGA_SYS(fcntl, fd, F_SETFL, access | O_NONBLOCK) != 0) return LastError("fcntl pipe");
  return OkStatus();
}

}  // namespace

Result<FunctionPipe> MakeInputPipe() {
  FunctionPipe pipe;
  PULGA_RETURN_IF_ERROR(MakePipe(&pipe.theirs, &pipe.ours));
  PULGA_RETURN_IF_ERROR(SetOurs(pipe.ours.get(), O_WRONLY));
  return pipe;
}

Result<FunctionPipe> MakeOutputPipe() {
  FunctionPipe pipe;
  PULGA_RETURN_IF_ERROR(MakePipe(&pipe.ours, &pipe.theirs));
  PULGA_RETURN_IF_ERROR(SetOurs(pipe.ours.get(), O_RDONLY));
  return pipe;
}

Result<UniqueFd> OpenNullInput() {
  UniqueFd fd(PULGA_SYS(open, "/dev/null", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return LastError("open /dev/null");
  return fd;
}

IoResult ReadSome(int fd, char* buffer, size_t capacity) {
  ssize_t n;
  do {
    n = read(fd, buffer, capacity);
  } while (n < 0 && errno == EINTR);
  if (n > 0) return {IoState::kSome, static_cast<size_t>(n)};
  if (n < 0 && errno == EAGAIN) return {IoState::kBlocked, 0};
  return {IoState::kClosed, 0};
}

IoResult WriteSome(int fd, std::string_view bytes) {
  ssize_t n;
  do {
    n = write(fd, bytes.data(), bytes.size());
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return {IoState::kSome, static_cast<size_t>(n)};
  if (errno == EAGAIN) return {IoState::kBlocked, 0};
  return {IoState::kClosed, 0};
}

}  // namespace pulga
