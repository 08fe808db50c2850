// Result<T>: a value or an Error; Status: success or an Error.
// Errors say what was being done, to what, and errno; each layer prepends what it knows
// ("import hello:1: layer 2/5: write bin/sh: No space left on device").
// A failing function of a user is never an Error: it is an Outcome (sandbox/outcome.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace pulga {

// The closed set. errno -> Code happens in result.cpp only, Code -> HTTP in api/error_mapping only.
enum class Code {
  kInvalidArgument,  // the caller's input is wrong
  kNotFound,
  kAlreadyExists,  // or in use by somebody else
  kPermission,     // we, or the kernel, refuse
  kTooLarge,       // an input passes a limit
  kNoSpace,        // disk, memory or quota is used up
  kUnsupported,    // this kernel, board or build cannot do it
  kUnavailable,    // not now: shutting down, a helper is restarting
  kTimeout,
  kIo,        // the kernel failed us otherwise; sys_errno says how
  kInternal,  // a bug of ours, reported instead of crashing
};

std::string_view CodeName(Code code);

struct Error {
  Code code = Code::kInternal;
  int sys_errno = 0;    // 0 when no system call was involved
  std::string message;  // without a trailing newline
};

// "open /x: No such file or directory" with the code that fits `sys_errno`.
[[gnu::cold]] Error ErrnoError(std::string_view what, int sys_errno);
// The same from the current errno.
[[gnu::cold]] Error LastError(std::string_view what);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  T& value() & {
    PULGA_CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    PULGA_CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    PULGA_CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() {
    PULGA_CHECK(!ok());
    return std::get<1>(state_);
  }
  const Error& error() const {
    PULGA_CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Error> state_;
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit
  template <typename T>
  explicit Status(const Result<T>& r) {
    if (!r.ok()) error_ = r.error();
  }

  bool ok() const { return !error_.has_value(); }
  const Error& error() const {
    PULGA_CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

// Puts "what: " in front of the message.
[[gnu::cold]] Error Prefix(std::string_view what, Error error);
inline Status OkStatus() { return Status(); }

#define PULGA_CONCAT_INNER(a, b) a##b
#define PULGA_CONCAT(a, b) PULGA_CONCAT_INNER(a, b)

// Returns the error of `expr` (a Status) from the enclosing function.
#define PULGA_RETURN_IF_ERROR(expr)       \
  do {                                    \
    ::pulga::Status pulga_status_(expr);  \
    if (!pulga_status_.ok()) [[unlikely]] \
      return pulga_status_.error();       \
  } while (false)

// `PULGA_ASSIGN_OR_RETURN(auto x, F());` unpacks a Result or returns its error.
#define PULGA_ASSIGN_OR_RETURN(lhs, expr) \
  PULGA_ASSIGN_OR_RETURN_INNER(PULGA_CONCAT(pulga_result_, __LINE__), lhs, expr)
#define PULGA_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) [[unlikely]]                        \
    return std::move(tmp).error();                   \
  lhs = std::move(tmp).value()

}  // namespace pulga
