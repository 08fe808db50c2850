#include "net/net_job.h"

#include <charconv>

namespace pulga {

std::string EncodeNetAnswer(const Status& done) {
  if (done.ok()) return "+";
  const std::string text = "-" + std::to_string(done.error().sys_errno) + " ";
  return (text + done.error().message).substr(0, kMaxNetAnswer);
}

bool TellNetAnswer(const MessageSocket& to, const Status& done, std::span<const int> fds) {
  const std::string text = EncodeNetAnswer(done);
  const Status told =
      to.Send(std::as_bytes(std::span(text)), done.ok() ? fds : std::span<const int>{});
  if (told.ok()) return done.ok();
  if (done.ok()) TellNetAnswer(to, Prefix("net-answer", told.error()));
  return false;
}

Status DecodeNetAnswer(std::string_view text) {
  if (text == "+") return OkStatus();
  int sys_errno = -1;
  const char* end = text.data() + text.size();
  if (!text.empty() && text[0] == '-') {
    end = std::from_chars(text.data() + 1, end, sys_errno).ptr;
  }
  const auto parsed = static_cast<size_t>(end - text.data());
  if (sys_errno < 0 || parsed >= text.size() || text[parsed] != ' ') {
    return Error{Code::kInternal, 0, "an answer that makes no sense"};
  }
  const Code code = ErrnoError("", sys_errno).code;
  const bool passing =
      code == Code::kNoSpace || code == Code::kUnavailable || code == Code::kTimeout;
  return Error{passing ? code : Code::kUnsupported, sys_errno,
               std::string(text.substr(parsed + 1))};
}

}  // namespace pulga
