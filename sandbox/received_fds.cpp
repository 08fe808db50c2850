#include "sandbox/received_fds.h"

#include <unistd.h>

#include <cstring>

#include "base/sys.h"

namespace pulga {

ssize_t StdioMessage::Receive(int socket, int flags) {
  header_ = {};
  header_.msg_iov = &bytes_;
  header_.msg_iovlen = 1;
  header_.msg_control = control_;
  header_.msg_controllen = sizeof control_;
  return PULGA_SYS(recvmsg, socket, &header_, flags | MSG_CMSG_CLOEXEC);
}

ReceivedFds::ReceivedFds(msghdr& message) {
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) proper_ = false;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      Take(*header);
    } else {
      proper_ = false;
    }
  }
  if (count_ > 1 && count_ != kStdioFds && count_ != kStdioAndChannelFds) proper_ = false;
  if (!proper_) CloseAll();
}

void ReceivedFds::Take(const cmsghdr& header) {
  if (header.cmsg_len < CMSG_LEN(0)) return;
  const size_t count = (header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
  const unsigned char* data = CMSG_DATA(&header);
  for (size_t i = 0; i < count; ++i) {
    int fd;
    memcpy(&fd, data + i * sizeof fd, sizeof fd);
    if (count_ < kStdioAndChannelFds) {
      fd_[count_++] = fd;
    } else {
      proper_ = false;
      close(fd);
    }
  }
}

void ReceivedFds::CloseAll() {
  for (int i = 0; i < count_; ++i) close(fd_[i]);
  count_ = 0;
}

}  // namespace pulga
