// Pipes between the daemon and a function: our end is non-blocking, the function's is not (the flag
// belongs to one end's open file description). Loop thread.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

inline constexpr size_t kMaxHeldBytes = 64 * 1024;  // in each direction of a call

struct FunctionPipe {
  UniqueFd ours;
  UniqueFd theirs;
};

Result<FunctionPipe> MakeInputPipe();   // we write, the function reads
Result<FunctionPipe> MakeOutputPipe();  // the function writes, we read
// A new descriptor on /dev/null: the input of what gets none.
Result<UniqueFd> OpenNullInput();

enum class IoState : uint8_t { kSome, kBlocked, kClosed };
struct IoResult {
  IoState state = IoState::kBlocked;
  size_t size = 0;  // kSome
};
// EINTR-safe. kClosed: end of file, or nobody reads any more. SIGPIPE must be ignored.
IoResult ReadSome(int fd, char* buffer, size_t capacity);
IoResult WriteSome(int fd, std::string_view bytes);

}  // namespace pulga
