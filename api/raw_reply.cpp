#include "api/raw_reply.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstdio>

namespace pulga {
namespace {

constexpr size_t kBlock = 32 * 1024;

std::string HeadOf(const HttpReply& reply, bool chunked) {
  std::string out = "HTTP/1.1 " + std::to_string(reply.status) + " ";
  out += ReasonPhrase(reply.status);
  out += "\r\nConnection: close\r\n";
  const auto size =
      reply.streamed ? reply.stream_size : std::optional<uint64_t>(reply.text().size());
  if (size) out += "Content-Length: " + std::to_string(*size) + "\r\n";
  if (chunked) out += "Transfer-Encoding: chunked\r\n";
  for (const auto& [name, value] : reply.headers) {
    const bool trailer = chunked && name == "Trailer";
    if (trailer || IsFitReplyHeader(name, value)) out += name + ": " + value + "\r\n";
  }
  return out + "\r\n";
}

}  // namespace

void RawReply::Start(const HttpRequest& request, const HttpReply& reply, HttpHandler* handler) {
  const bool chunked = reply.streamed && !reply.stream_size && request.version == "HTTP/1.1";
  framing_ = chunked ? Framing::kChunked : Framing::kPlain;
  out_ = HeadOf(reply, chunked);
  if (!reply.streamed && request.method != "HEAD") out_ += reply.text();
  const bool has_body = request.method != "HEAD" && reply.status != 304;
  handler_ = reply.streamed && has_body ? handler : nullptr;
  Pump();
}

void RawReply::Stop() {
  ended_ = true;
  if (watching_) loop_.Unwatch(fd_);
  watching_ = false;
}

void RawReply::Pump() {
  if (ended_ || pumping_) return;
  pumping_ = true;
  while (Send() && Fill()) {
  }
  pumping_ = false;
}

bool RawReply::Send() {
  while (sent_ < out_.size()) {
    const ssize_t n =
        send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent_ += static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      Watch(EPOLLOUT | EPOLLRDHUP);
      return false;
    } else if (errno != EINTR) {
      Finish(End::kBroken);
      return false;
    }
  }
  out_.clear();
  sent_ = 0;
  return true;
}

bool RawReply::Fill() {
  if (handler_ == nullptr) {
    Finish(End::kDone);
    return false;
  }
  char block[kBlock];
  const ReadResult result = handler_->Read(block, sizeof block);
  switch (result.state) {
    case ReadState::kData: {
      char size[24];
      snprintf(size, sizeof size, "%zx\r\n", result.size);
      if (framing_ == Framing::kChunked) out_ += size;
      out_.append(block, result.size);
      if (framing_ == Framing::kChunked) out_ += "\r\n";
      return true;
    }
    case ReadState::kWait:
      Watch(EPOLLRDHUP);
      return false;
    case ReadState::kEnd:
      AppendLast();
      return true;
    case ReadState::kAborted:
      break;
  }
  Finish(End::kBroken);
  return false;
}

void RawReply::AppendLast() {
  if (framing_ == Framing::kChunked) {
    out_ += "0\r\n";
    for (const auto& [name, value] : handler_->Trailers()) {
      if (IsFitReplyHeader(name, value)) out_ += name + ": " + value + "\r\n";
    }
    out_ += "\r\n";
  }
  handler_ = nullptr;
}

void RawReply::Watch(uint32_t events) {
  if (watching_) {
    if (!loop_.Modify(fd_, events).ok()) Finish(End::kBroken);
    return;
  }
  watching_ = loop_
                  .Watch(fd_, events,
                         [this](uint32_t ready) {
                           if ((ready & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
                             return Finish(End::kBroken);
                           Pump();
                         })
                  .ok();
  if (!watching_) Finish(End::kBroken);
}

void RawReply::Finish(End end) {
  if (ended_) return;
  Stop();
  on_end_(end);
}

}  // namespace pulga
