#include "base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace pulga {
namespace {

Code CodeOf(int sys_errno) {
  switch (sys_errno) {
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
    case ENOTDIR:
    case EISDIR:
    case ENOEXEC:
      return Code::kInvalidArgument;
    case ENOENT:
    case ESRCH:
      return Code::kNotFound;
    case EEXIST:
    case ENOTEMPTY:
    case EADDRINUSE:
    case EBUSY:
      return Code::kAlreadyExists;
    case EPERM:
    case EACCES:
    case EROFS:
      return Code::kPermission;
    case E2BIG:
    case EFBIG:
    case EMSGSIZE:
      return Code::kTooLarge;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return Code::kNoSpace;
    case ENOSYS:
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case ENODEV:
      return Code::kUnsupported;
    case EAGAIN:
    case ETOOMANYREFS:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
      return Code::kUnavailable;
    case ETIMEDOUT:
      return Code::kTimeout;
    default:
      return Code::kIo;
  }
}

}  // namespace

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kAlreadyExists:
      return "already_exists";
    case Code::kPermission:
      return "permission";
    case Code::kTooLarge:
      return "too_large";
    case Code::kNoSpace:
      return "no_space";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kTimeout:
      return "timeout";
    case Code::kIo:
      return "io";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

Error ErrnoError(std::string_view what, int sys_errno) {
  return Error{CodeOf(sys_errno), sys_errno, std::string(what) + ": " + strerror(sys_errno)};
}

Error LastError(std::string_view what) { return ErrnoError(what, errno); }

Error Prefix(std::string_view what, Error error) {
  error.message.insert(0, std::string(what) + ": ");
  return error;
}

void CheckFailed(const char* file, int line, const char* condition) {
  fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  abort();
}

}  // namespace pulga
