#include "runtime/callback_post.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/file_io.h"
#include "base/sys.h"
#include "images/fetch/fetch_wire.h"
#include "images/job_events.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

constexpr Duration kTimeLimit = std::chrono::seconds(30);
// The fetcher keeps the limit itself; this is for one that does not.
constexpr Duration kErrandLimit = kTimeLimit + std::chrono::seconds(10);

Result<UniqueFd> FileOf(const std::string& head, const std::string& body) {
  UniqueFd file(sys::MemfdCreate("callback", MFD_CLOEXEC));
  if (!file.valid()) return LastError("make a callback's message");
  PULGA_RETURN_IF_ERROR(WriteAll(file.get(), head));
  PULGA_RETURN_IF_ERROR(WriteAll(file.get(), body));
  return file;
}

CallbackEnd NotTried(Error why) { return {std::move(why), false, {}}; }

// What the fetcher told before it ended; its channel does not block. One that ends in silence once
// it has begun was brought to that by the receiver, for all that is known.
CallbackEnd Told(int channel_fd, const Status& ended) {
  JobEventReader reader(channel_fd);
  bool begun = false;
  while (true) {
    const auto event = reader.Next();
    if (!event.ok() || !event->has_value()) break;
    const JobEventKind kind = (*event)->kind;
    if (kind == JobEventKind::kFailure || kind == JobEventKind::kUnreached) {
      const auto failure = DecodeFailure((*event)->payload);
      if (failure) return {*failure, kind == JobEventKind::kUnreached, {}};
    }
    begun = begun || kind == JobEventKind::kProgress;
    if (kind != JobEventKind::kStatus || !ended.ok()) continue;
    FieldReader in((*event)->payload);
    const uint64_t status = in.U64();
    if (in.AtEnd() && status >= 100 && status <= 599) return {static_cast<int>(status), true, {}};
  }
  const std::string why = ended.ok() ? "the fetcher told nothing" : ended.error().message;
  return {Error{Code::kUnavailable, 0, why}, begun, {}};
}

// Lives until the launcher has told of the job's end, wanted or not.
struct Errand {
  explicit Errand(EventLoop& of) : loop(of) {}
  void Finish(const CallbackEnd& end) {
    ended = true;
    loop.Cancel(std::exchange(timer, 0));
    if (const auto tell = std::exchange(done, nullptr)) tell(end);
  }

  EventLoop& loop;
  std::function<void(CallbackEnd)> done;  // empty: nobody waits for it
  UniqueFd channel;
  uint64_t job = 0;
  bool ended = false;
  EventLoop::TimerId timer = 0;
};

class Post final : public PendingPost {
 public:
  Post(Sandbox& sandbox, std::shared_ptr<Errand> errand)
      : sandbox_(sandbox), errand_(std::move(errand)) {}
  ~Post() override {
    errand_->done = nullptr;
    errand_->loop.Cancel(std::exchange(errand_->timer, 0));
    if (!errand_->ended && errand_->job != 0) sandbox_.CancelUnpack(errand_->job);
  }

 private:
  Sandbox& sandbox_;
  std::shared_ptr<Errand> errand_;
};

Result<UnpackJob> MakeJob(const Url& url, const CallbackMessage& message,
                          std::vector<NetworkPrefix> networks, UniqueFd* channel) {
  const std::string head = HeadersText(message.headers);
  FetchOrder order;
  order.kind = FetchKind::kPost;
  order.post.url = url.ToString();
  order.post.head_bytes = head.size();
  order.post.body_bytes = message.body.size();
  order.post.networks = std::move(networks);
  order.post.time_limit = kTimeLimit;
  UnpackJob job;
  job.kind = UnpackKind::kFetch;
  job.request = order.Encode();
  PULGA_ASSIGN_OR_RETURN(job.input, FileOf(head, message.body));
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("make a callback's channel");
  channel->Reset(fds[0]);
  job.channel.Reset(fds[1]);
  PULGA_RETURN_IF_ERROR(SetNonBlocking(channel->get()));
  return job;
}

std::unique_ptr<PendingPost> StartPost(Sandbox& sandbox, const std::shared_ptr<Errand>& errand,
                                       Result<UnpackJob> job) {
  if (!job.ok()) {
    errand->loop.Post([errand, error = job.error()] { errand->Finish(NotTried(error)); });
    return std::make_unique<Post>(sandbox, errand);
  }
  errand->job = sandbox.RunUnpack(std::move(*job), [errand](const Status& ended) {
    // Posted: a launcher that is gone may be told of at once.
    errand->loop.Post([errand, ended] { errand->Finish(Told(errand->channel.get(), ended)); });
  });
  errand->timer = errand->loop.CallAfter(kErrandLimit, [&sandbox, errand] {
    errand->timer = 0;
    sandbox.CancelUnpack(errand->job);
  });
  return std::make_unique<Post>(sandbox, errand);
}

}  // namespace

PostCallback MakeCallbackPost(EventLoop& loop, Sandbox& sandbox,
                              std::function<std::vector<NetworkPrefix>()> networks) {
  return
      [&loop, &sandbox, networks = std::move(networks)](
          const Url& url, const CallbackMessage& message, std::function<void(CallbackEnd)> done) {
        const auto errand = std::make_shared<Errand>(loop);
        errand->done = std::move(done);
        auto job = MakeJob(url, message, networks(), &errand->channel);
        return StartPost(sandbox, errand, std::move(job));
      };
}

}  // namespace pulga
