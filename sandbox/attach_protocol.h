// Messages between the launcher and the spawner of an http version with outbound network: the
// spawner sends each network namespace it has made and may use it once it is attached. Fixed
// structs over a seqpacket pair; the launcher believes no number and no descriptor.
#pragma once

#include <cstdint>

namespace pulga {

enum class AttachKind : uint32_t {
  kAttach = 1,   // 1 fd: the namespace
  kRelease = 2,  // it is used no more
};

struct AttachRequest {
  AttachKind kind = AttachKind::kAttach;
  uint32_t number = 0;  // the spawner's choice
};

struct AttachAnswer {
  uint32_t number = 0;
  int32_t sys_errno = 0;  // 0: attached
};

}  // namespace pulga
