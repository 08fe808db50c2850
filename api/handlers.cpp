#include "api/handlers.h"

#include <sys/stat.h>

#include "api/native/tus_rules.h"
#include "base/units.h"

namespace pulga {
namespace {

class ImmediateHandler final : public ReplyingHandler {
 public:
  ImmediateHandler(HttpExchange& exchange, HttpReply reply)
      : ReplyingHandler(exchange), reply_(std::move(reply)) {}
  void Start() override { exchange().Reply(std::move(reply_)); }

 private:
  HttpReply reply_;
};

class BodyHandler final : public ReplyingHandler {
 public:
  BodyHandler(HttpExchange& exchange, size_t limit, BodyFunction function, RefusalFunction refuse)
      : ReplyingHandler(exchange), limit_(limit), function_(std::move(function)), refuse_(refuse) {}

  void Start() override {
    if (exchange().request().content_length.value_or(0) > limit_) Refuse();
  }
  size_t OnBody(std::string_view bytes) override {
    if (body_.size() + bytes.size() > limit_) {
      Refuse();
    } else {
      body_ += bytes;
    }
    return bytes.size();
  }
  void OnBodyEnd() override {
    function_(std::move(body_),
              WhileOpen([this](HttpReply reply) { exchange().Reply(std::move(reply)); }));
  }

 private:
  void Refuse() {
    const Error error{Code::kTooLarge, 0, "the request body is larger than " + HumanBytes(limit_)};
    if (refuse_ != nullptr) return exchange().Reply(refuse_(error));
    HttpReply reply = ErrorReply(ToApiError(error, ""));
    AddTusVersion(exchange().request().path(), &reply);
    exchange().Reply(std::move(reply));
  }

  size_t limit_;
  BodyFunction function_;
  RefusalFunction refuse_;
  std::string body_;
};

}  // namespace

HttpReply FileReply(UniqueFd fd, std::string content_type) {
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return ErrorReply(ToApiError(LastError("stat the reply"), "file"));
  HttpReply reply;
  reply.headers = {{"Content-Type", std::move(content_type)}, {"Cache-Control", "no-store"}};
  if (st.st_size == 0) return reply;
  reply.file = std::move(fd);
  reply.file_size = static_cast<uint64_t>(st.st_size);
  return reply;
}

HttpReply JsonReply(int status, std::string body) {
  HttpReply reply;
  reply.status = status;
  reply.headers = {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  reply.body = std::move(body);
  return reply;
}

HttpReply EmptyReply(int status) {
  HttpReply reply;
  reply.status = status;
  return reply;
}

std::unique_ptr<HttpHandler> Immediately(HttpExchange& exchange, HttpReply reply) {
  return std::make_unique<ImmediateHandler>(exchange, std::move(reply));
}

std::unique_ptr<HttpHandler> WithBody(HttpExchange& exchange, size_t limit, BodyFunction function,
                                      RefusalFunction refuse) {
  return std::make_unique<BodyHandler>(exchange, limit, std::move(function), refuse);
}

}  // namespace pulga
