// pulga-fetcher: one errand on the network (fetch_wire.h), then the end. Remote bytes stay in here:
// in its own namespaces but for the network, locked in (fetch_confine.h), with memory that does not
// grow with what comes. Exit status 0, or 1 with the reason as the channel's last event.

#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/file_io.h"
#include "base/unpack_job.h"
#include "images/archive_index.h"
#include "images/fetch/callback_errand.h"
#include "images/fetch/curl_transport.h"
#include "images/fetch/fetch_confine.h"
#include "images/fetch/registry_client.h"
#include "images/job_events.h"
#include "images/unpack_wire.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace pulga {
namespace {

constexpr size_t kMaxExtraCa = 512 * 1024;

Status WriteAt(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n =
        pwrite(kUnpackOutputFd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return LastError("store what was fetched");
    offset += static_cast<uint64_t>(n);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

// Blobs to their places, documents one after the other; both are told as members of a layout.
class OutputSink final : public FetchSink {
 public:
  Status Document(const std::string& name, const std::string& bytes) override {
    PULGA_RETURN_IF_ERROR(WriteAt(end_, bytes));
    ArchiveMember member;
    member.offset = end_;
    member.size = bytes.size();
    end_ += bytes.size();
    return Tell(name, member);
  }
  Status WriteBlob(uint64_t offset, std::string_view bytes) override {
    return WriteAt(offset, bytes);
  }
  Status BlobDone(const WantedBlob& blob) override {
    ArchiveMember member;
    member.offset = blob.offset;
    member.size = blob.size;
    return Tell(BlobName(blob.digest), member);
  }
  Status Progress(size_t blob, uint64_t bytes) override {
    FieldWriter out;
    out.PutU64(blob);
    out.PutU64(bytes);
    return SendEvent(kUnpackChannelFd, JobEventKind::kProgress, out.bytes());
  }

 private:
  static Status Tell(const std::string& name, const ArchiveMember& member) {
    return SendEvent(kUnpackChannelFd, JobEventKind::kMember, EncodeMember(name, member));
  }
  uint64_t end_ = 0;
};

Status RunPost(const FetchOrder& order, HttpTransport& transport) {
  // From here on it is the receiver's doing if nothing more is told.
  FieldWriter nothing_sent;
  nothing_sent.PutU64(0);
  PULGA_RETURN_IF_ERROR(SendEvent(kUnpackChannelFd, JobEventKind::kProgress, nothing_sent.bytes()));
  Result<int> answer = 0;
  PULGA_RETURN_IF_ERROR(RunCallback(order.post, transport, kUnpackInputFd, &answer));
  if (!answer.ok()) {
    return SendEvent(kUnpackChannelFd, JobEventKind::kUnreached, EncodeFailure(answer.error()));
  }
  FieldWriter out;
  out.PutU64(static_cast<uint64_t>(*answer));
  return SendEvent(kUnpackChannelFd, JobEventKind::kStatus, out.bytes());
}

Status RunErrand() {
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadFd(kUnpackRequestFd, kMaxUnpackRequestBytes));
  const auto order = FetchOrder::Decode(bytes);
  if (!order) return Error{Code::kInternal, 0, "the fetcher got a damaged request"};
  FetchView view;
  const bool posts = order->kind == FetchKind::kPost;  // then the input is what is sent
  if (!posts) {
    PULGA_ASSIGN_OR_RETURN(view.extra_ca, ReadFd(kUnpackInputFd, kMaxExtraCa));
  }
  view.max_file_bytes = order->max_bytes;
  CurlOptions options;
  options.proxies = order->proxies;
  options.ca_file = kFetchCaFile;
  options.connect_timeout = order->connect_timeout;
  options.stall_timeout = order->stall_timeout;
  options.channel_fd = kUnpackChannelFd;
  // Before the walls go up: the library reads its own configuration from the host.
  PULGA_ASSIGN_OR_RETURN(const auto transport, CurlTransport::Create(std::move(options)));
  PULGA_RETURN_IF_ERROR(LockInFetcher(view));
  if (posts) return RunPost(*order, *transport);
  OutputSink sink;
  const SystemClock clock;
  RegistryClient client(*order, *transport, clock, RetryRules{}, sink);
  return client.Run();
}

int Main() {
  umask(077);
  mallopt(M_ARENA_MAX, 1);  // resolver threads bring arenas of their own otherwise
  close(kUnpackStagingFd);
  const Status status = RunErrand();
  if (status.ok()) return 0;
  (void)SendEvent(kUnpackChannelFd, JobEventKind::kFailure, EncodeFailure(status.error()));
  return 1;
}

}  // namespace
}  // namespace pulga

int main() { return pulga::Main(); }
