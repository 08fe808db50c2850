#include "api/last_words.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "api/error_mapping.h"
#include "api/native/tus_rules.h"
#include "api/raw_reply.h"
#include "base/ids.h"

namespace pulga {
namespace {

constexpr auto kLinger = std::chrono::seconds(2);
constexpr size_t kDropBytes = 4 << 20;
constexpr size_t kMostRests = 64;

ApiError ProblemOf(int status) {
  switch (status) {
    case 408:
      return {408,
              "request_timeout",
              "the request did not arrive in time; send it again, without pauses",
              {}};
    case 413:
      return {413,
              "too_large",
              "the Content-Length, or the size of a chunk, is too large to be counted",
              {}};
    case 414:
      return {414, "uri_too_long", "the request line is too long; put the data into the body", {}};
    case 431:
      return {431,
              "head_too_large",
              "the request's head is too large; send fewer or shorter headers",
              {}};
    case 505:
      return {505, "http_version", "only HTTP/1.0 and HTTP/1.1 are spoken here", {}};
    case 400:
      return {400,
              "malformed_request",
              "malformed request: check the Host and Content-Length headers and the chunks",
              {}};
    case 503:
      return {503, "connections", "too many open connections; try again in a few seconds", {}};
    default:
      return {status, "bad_request", "the request can not be served", {}};
  }
}

}  // namespace

HttpReply RefusalOfRequest(int status, std::string_view target, std::string_view why) {
  ApiError problem = ProblemOf(status);
  if (!why.empty()) problem.message = why;
  const std::string_view path = target.substr(0, target.find('?'));
  HttpReply reply = IsManagementPath(path)
                        ? ErrorReply(problem)
                        : RefusedCallReply(problem, ErrorForm::kText, RandomUuid());
  if (IsManagementPath(path)) reply.headers.emplace_back("X-Call-Id", RandomUuid());
  AddTusVersion(path, &reply);
  reply.close = true;
  return reply;
}

HttpReply RefusalOfConnection(int fd, std::string_view why) {
  char block[4096];
  const ssize_t n = recv(fd, block, sizeof block, MSG_DONTWAIT);
  std::string_view line(block, n > 0 ? static_cast<size_t>(n) : 0);
  line = line.substr(0, line.find_first_of("\r\n"));
  const size_t target = line.find(' ');
  if (target == std::string_view::npos) return RefusalOfRequest(503, "", why);
  line = line.substr(target + 1, line.find(' ', target + 1) - target - 1);
  return RefusalOfRequest(503, line, why);
}

LastWords::~LastWords() {
  while (!rests_.empty()) End(rests_.begin());
}

void LastWords::Say(int fd, const HttpReply& reply) {
  RawReply raw(loop_, fd, [](RawReply::End) {});
  raw.Start({}, reply, nullptr);
  raw.Stop();
  shutdown(fd, SHUT_WR);
  Linger(fd);
}

void LastWords::Linger(int fd) {
  if (rests_.size() >= kMostRests) return;
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return;
  const auto rest = rests_.insert(rests_.end(), Rest{std::move(copy), 0, 0});
  if (!loop_.Watch(rest->fd.get(), EPOLLIN, [this, rest](uint32_t) { Drop(rest); }).ok()) {
    rests_.erase(rest);
    return;
  }
  rest->timer = loop_.CallAfter(kLinger, [this, rest] {
    rest->timer = 0;
    End(rest);
  });
}

void LastWords::Drop(Rests::iterator rest) {
  char block[16 * 1024];
  const ssize_t n = recv(rest->fd.get(), block, sizeof block, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) rest->dropped += static_cast<size_t>(n);
  if (n <= 0 || rest->dropped > kDropBytes) End(rest);
}

void LastWords::End(Rests::iterator rest) {
  if (rest->timer != 0) loop_.Cancel(rest->timer);
  loop_.Unwatch(rest->fd.get());
  rests_.erase(rest);
}

}  // namespace pulga
