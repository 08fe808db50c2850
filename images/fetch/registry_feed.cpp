#include "images/fetch/registry_feed.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/file_io.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

// Five manifests of 4 MiB and a configuration: what a hostile registry could make us store.
constexpr uint64_t kMaxDocuments = 32 << 20;
constexpr uint64_t kMaxTopIndex = 4096;

// Of an error that the fetcher told itself.
ImportReason ReasonOf(Code code) {
  switch (code) {
    case Code::kPermission:
      return ImportReason::kDenied;
    case Code::kNotFound:
      return ImportReason::kNoSuchImage;
    case Code::kTooLarge:
      return ImportReason::kTooLarge;
    case Code::kNoSpace:
      return ImportReason::kNoSpace;
    case Code::kInvalidArgument:
    case Code::kUnsupported:
    case Code::kAlreadyExists:
      return ImportReason::kBadImage;
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kIo:
      return ImportReason::kRegistry;
    case Code::kInternal:
      return ImportReason::kInternal;
  }
  return ImportReason::kInternal;
}

Result<UniqueFd> FileOf(const std::string& content, const std::string& dir) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd file, OpenUnnamedFile(dir));
  PULGA_RETURN_IF_ERROR(WriteAll(file.get(), content));
  if (lseek(file.get(), 0, SEEK_SET) != 0) return LastError("rewind a file");
  return file;
}

}  // namespace

Result<std::unique_ptr<RegistryFeed>> RegistryFeed::Start(UnpackRunner& runner,
                                                          RegistryOptions options) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd output, OpenUnnamedFile(options.scratch_dir));
  options.order.kind = FetchKind::kResolve;
  options.order.host = DetectHostAbility();
  options.order.max_bytes = kMaxDocuments;
  std::unique_ptr<RegistryFeed> feed(
      new RegistryFeed(runner, std::move(output), std::move(options)));
  PULGA_RETURN_IF_ERROR(feed->Reserve(kMaxDocuments));
  PULGA_RETURN_IF_ERROR(feed->StartErrand());
  return feed;
}

Status RegistryFeed::StartErrand() {
  UnpackJob job;
  job.kind = UnpackKind::kFetch;
  job.request = options_.order.Encode();
  if (job.request.size() > kMaxUnpackRequestBytes) {
    return Error{Code::kTooLarge, 0, "the image has too many layers, or its credentials too long"};
  }
  if (!options_.extra_ca.empty()) {
    PULGA_ASSIGN_OR_RETURN(job.input, FileOf(options_.extra_ca, options_.scratch_dir));
  }
  job.output.Reset(fcntl(output_.get(), F_DUPFD_CLOEXEC, 3));
  if (!job.output.valid()) return LastError("duplicate a descriptor");
  errand_.reset();
  PULGA_ASSIGN_OR_RETURN(errand_, JobCall::Start(runner_, std::move(job)));
  return OkStatus();
}

Status RegistryFeed::WaitForNews() {
  if (errand_->buffered()) return OkStatus();
  pollfd fds[2] = {{errand_->channel_fd(), POLLIN, 0}, {options_.cancel_fd, POLLIN, 0}};
  while (poll(fds, 2, -1) < 0) {
    if (errno != EINTR) return LastError("wait for the fetcher");
  }
  if (fds[1].revents == 0) return OkStatus();
  errand_->Cancel();
  return Error{Code::kUnavailable, ECANCELED, "the pull was cancelled"};
}

// A layer's place is ours to choose, and a document lies behind the one before it.
Status RegistryFeed::CheckAsked(const NamedMember& named) {
  const Error odd = {Code::kInternal, 0, "the fetcher told of something that was not asked for"};
  const ArchiveMember& member = named.member;
  if (member.type != MemberType::kFile) return odd;
  if (options_.order.kind == FetchKind::kResolve) {
    if (member.offset != end_ || member.size > kMaxDocuments - end_) return odd;
    end_ += member.size;
    if (top_.empty()) {
      top_ = named.name;
      top_size_ = member.size;
    }
    return named.name == "index.json" ? CheckTop(member) : OkStatus();
  }
  for (const WantedBlob& blob : options_.order.blobs) {
    if (blob.offset == member.offset && blob.size == member.size &&
        BlobName(blob.digest) == named.name) {
      return OkStatus();
    }
  }
  return odd;
}

// An image asked for by digest is that one, whatever the fetcher says.
Status RegistryFeed::CheckTop(const ArchiveMember& index) const {
  PULGA_ASSIGN_OR_RETURN(const ImageRef ref, ParseImageRef(options_.order.ref));
  const auto wanted = ParseDigest(ref.digest);
  if (!wanted) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const std::string text,
                         ReadAt(output_.get(), static_cast<off_t>(index.offset),
                                std::min<uint64_t>(index.size, kMaxTopIndex)));
  const bool fits =
      top_ == BlobName(*wanted) && (text == TopIndex(*wanted, top_size_, TopKind::kIndex) ||
                                    text == TopIndex(*wanted, top_size_, TopKind::kManifest));
  if (fits) return OkStatus();
  return Error{Code::kInvalidArgument, 0, "what came is not " + ref.digest};
}

Result<std::optional<NamedMember>> RegistryFeed::NextOf(const JobEvent& event) {
  if (event.kind == JobEventKind::kProgress) Tell(event.payload);
  if (event.kind != JobEventKind::kMember) return std::optional<NamedMember>();
  auto named = DecodeMember(event.payload);
  if (!named) {
    return Blame(ImportReason::kInternal,
                 {Code::kInternal, 0, "the fetcher told of a damaged member"});
  }
  const Status asked = CheckAsked(*named);
  if (!asked.ok()) return Blame(ReasonOf(asked.error().code), asked.error());
  named->member.sha256.clear();  // remote bytes were near that process: nothing is believed
  return std::optional(std::move(*named));
}

Result<std::optional<NamedMember>> RegistryFeed::Next() {
  while (errand_ != nullptr) {
    const Status news = WaitForNews();
    if (!news.ok()) return Blame(ImportReason::kHelper, news.error());
    PULGA_ASSIGN_OR_RETURN(const auto event, errand_->Next());
    if (event) {
      PULGA_ASSIGN_OR_RETURN(auto named, NextOf(*event));
      if (named) return named;
      continue;
    }
    const auto errand = std::move(errand_);
    const Status done = errand->Finish();
    if (!done.ok()) {
      return Blame(errand->told() ? ReasonOf(done.error().code) : ImportReason::kHelper,
                   done.error());
    }
  }
  return std::optional<NamedMember>();
}

void RegistryFeed::Tell(const std::string& payload) {
  FieldReader in(payload);
  PullProgress progress;
  progress.layer = in.U64();
  progress.bytes = in.U64();
  const auto& blobs = options_.order.blobs;
  if (!in.AtEnd() || progress.layer >= blobs.size() || !options_.progress) return;
  progress.layers = blobs.size();
  progress.size = blobs[progress.layer].size;
  progress.total_size = options_.order.max_bytes - end_;
  progress.digest = blobs[progress.layer].digest.ToString();
  progress.bytes = std::min(progress.bytes, progress.size);
  options_.progress(progress);
}

Status RegistryFeed::Reserve(uint64_t bytes) const {
  struct statvfs disk = {};
  if (fstatvfs(output_.get(), &disk) != 0) return LastError("look at the disk");
  const uint64_t free_bytes = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  const uint64_t kept = options_.reserve_bytes;
  if (free_bytes >= kept && free_bytes - kept >= bytes) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "not enough space on the disk: " + HumanBytes(bytes) + " are wanted, " +
                   HumanBytes(free_bytes) + " free, of which " + HumanBytes(kept) +
                   " are kept (setting reserve-bytes)"};
}

Status RegistryFeed::Want(const std::vector<PlannedLayer>& layers) {
  std::set<std::string> seen;
  FetchOrder& order = options_.order;
  order.kind = FetchKind::kBlobs;
  order.max_bytes = end_;
  for (const PlannedLayer& layer : layers) {
    if (layer.member || !seen.insert(layer.blob_digest).second) continue;
    const auto digest = ParseDigest(layer.blob_digest);
    if (!digest || !layer.size) {
      return Error{Code::kInternal, 0, "a layer without digest or size can not be fetched"};
    }
    if (*layer.size > options_.most_bytes - std::min(options_.most_bytes, order.max_bytes - end_)) {
      return Blame(ImportReason::kTooLarge,
                   {Code::kTooLarge, 0,
                    "the image's layers are larger than " + HumanBytes(options_.most_bytes) +
                        " (setting upload-bytes)"});
    }
    order.blobs.push_back({*digest, *layer.size, order.max_bytes});
    order.max_bytes += *layer.size;
  }
  if (order.blobs.empty()) return OkStatus();
  if (errand_ != nullptr) {  // it has told everything
    const Status done = std::exchange(errand_, nullptr)->Finish();
    if (!done.ok()) return Blame(ImportReason::kHelper, done.error());
  }
  PULGA_RETURN_IF_ERROR(Reserve(order.max_bytes - end_));
  return StartErrand();
}

}  // namespace pulga
