// SimDescriptors: pipes, pairs of local sockets, an eventfd and an epoll in user space, for a
// simulation that would else spend most of its time in the kernel. While one exists, the calls that
// make descriptors (pipe2, socketpair, ...) make such ones; a call on any other descriptor goes to
// the kernel as ever. The linker puts it in between (--wrap, in CMakeLists.txt): the code under
// test knows nothing of it. Readiness, errors and the order of events are Linux's, and a test
// compares both. Nothing blocks: what would is EAGAIN. One at a time, one thread.
// Source: Linux fs/eventpoll.c, fs/pipe.c, net/unix/af_unix.c.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace pulga::testing {

class DescriptorTable;

class SimDescriptors {
 public:
  SimDescriptors();
  ~SimDescriptors();
  SimDescriptors(const SimDescriptors&) = delete;
  SimDescriptors& operator=(const SimDescriptors&) = delete;

  size_t open() const;
  // The first misuse, "" if none: closed twice, or while an epoll watches it.
  const std::string& broken() const;

 private:
  std::unique_ptr<DescriptorTable> table_;
};

}  // namespace pulga::testing
