#include "images/layer_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/sys.h"
#include "base/text.h"
#include "images/layer_path.h"

namespace pulga {
namespace {

constexpr size_t kMaxLostBytes = 1 << 20;  // of names
constexpr size_t kNodeBytes = 64;          // and of what holds each

bool IsLost(const std::set<std::string>& lost, const std::string& path) {
  if (lost.empty()) return false;
  if (lost.contains("") || lost.contains(path)) return true;
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    if (lost.contains(path.substr(0, slash))) return true;
  }
  return false;
}

// Exactly `size` bytes of the stream, in pieces.
template <typename Each>
Status TakeBytes(ByteSource& from, uint64_t size, Each each) {
  char buffer[16384];
  while (size > 0) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(size, sizeof buffer));
    PULGA_ASSIGN_OR_RETURN(const size_t n, from.Read(std::span(buffer, want)));
    if (n == 0) return Error{Code::kInvalidArgument, 0, "the layer changed while it was read"};
    each(std::string_view(buffer, n));
    size -= n;
  }
  return OkStatus();
}

}  // namespace

// --- LayerRecorder

// A reader that asks for more has used what it has: that was raw, or Content() would have said.
Result<size_t> LayerRecorder::Read(std::span<char> out) {
  PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(out));
  record_.Raw(open());
  position_ += n;
  std::string_view bytes(out.data(), n);
  const size_t content = static_cast<size_t>(std::min<uint64_t>(left_, n));
  if (content != 0) Pass(bytes.substr(0, content));
  held_ = bytes.substr(content);
  used_ = 0;
  return n;
}

void LayerRecorder::Pass(std::string_view content) {
  sum_.Update(content);
  left_ -= content.size();
  if (left_ == 0) record_.File(path_, size_, sum_.Finish());
}

Status LayerRecorder::Content(const std::string& path, uint64_t offset, uint64_t size) {
  const uint64_t held_at = position_ - open().size();
  if (left_ != 0 || size == 0 || offset < held_at || offset > position_) {
    return Error{Code::kInternal, 0, "the record lost its place in the layer"};
  }
  const size_t before = static_cast<size_t>(offset - held_at);
  record_.Raw(open().substr(0, before));
  const std::string_view behind = open().substr(before);
  const size_t content = static_cast<size_t>(std::min<uint64_t>(size, behind.size()));
  path_ = path;
  size_ = size;
  left_ = size;
  sum_ = ContentSum();
  Pass(behind.substr(0, content));
  used_ += before + content;
  return OkStatus();
}

void LayerRecorder::Lost(const std::string& path) {
  if (lost_bytes_ > kMaxLostBytes || !lost_.insert(path).second) return;
  lost_bytes_ += path.size() + kNodeBytes;
  if (lost_bytes_ > kMaxLostBytes) lost_ = {""};  // the root: everything
}

void LayerRecorder::Finish() {
  record_.Raw(open());
  held_.clear();
  used_ = 0;
  record_.EndOfTar();
}

Status RewriteRecord(RecordReader& from, ByteSource& tar, const std::set<std::string>& lost,
                     RecordWriter& to) {
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const RecordReader::Token token, from.Next());
    switch (token.kind) {
      case RecordReader::Kind::kEndOfTar:
        to.EndOfTar();
        return OkStatus();
      case RecordReader::Kind::kRaw: {
        std::string raw(token.size, '\0');
        PULGA_RETURN_IF_ERROR(from.ReadRaw(raw));
        PULGA_RETURN_IF_ERROR(TakeBytes(tar, token.size, [](std::string_view) {}));
        to.Raw(raw);
        break;
      }
      case RecordReader::Kind::kFile: {
        const bool keep = IsLost(lost, token.path);
        PULGA_RETURN_IF_ERROR(TakeBytes(tar, token.size, [&](std::string_view bytes) {
          if (keep) to.Raw(bytes);
        }));
        if (!keep) to.File(token.path, token.size, token.sum);
        break;
      }
    }
  }
}

// --- LayerReassembler

void LayerReassembler::Differ(const char* what) {
  if (std::exchange(broken_, true)) return;
  ++difference_count_;
  if (differences_.size() < kMaxDifferences) differences_.push_back({token_.path, what});
}

void LayerReassembler::OpenContent() {
  broken_ = false;
  sum_ = ContentSum();
  file_ = UniqueFd(
      sys::OpenBeneath(layer_fd_, token_.path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat st = {};
  if (!file_.valid() || fstat(file_.get(), &st) != 0) {
    file_.Reset();
    return Differ(errno == ELOOP ? "type" : "missing");
  }
  if (S_ISREG(st.st_mode) && static_cast<uint64_t>(st.st_size) == token_.size) return;
  if (!S_ISREG(st.st_mode)) file_.Reset();
  Differ(S_ISREG(st.st_mode) ? "size" : "type");
}

Status LayerReassembler::Advance() {
  PULGA_ASSIGN_OR_RETURN(token_, record_.Next());
  left_ = token_.size;
  if (token_.kind == RecordReader::Kind::kEndOfTar) ended_ = true;
  if (token_.kind == RecordReader::Kind::kFile) OpenContent();
  return OkStatus();
}

Result<size_t> LayerReassembler::ReadContent(std::span<char> out) {
  ssize_t n = 0;
  do {
    n = file_.valid() ? read(file_.get(), out.data(), out.size()) : 0;
  } while (n < 0 && errno == EINTR);
  if (n < 0) return LastError("read " + Printable(token_.path, 200));
  if (n == 0) {
    memset(out.data(), 0, out.size());
    n = static_cast<ssize_t>(out.size());
  }
  sum_.Update(std::string_view(out.data(), static_cast<size_t>(n)));
  return static_cast<size_t>(n);
}

Result<size_t> LayerReassembler::Read(std::span<char> out) {
  while (left_ == 0 && !ended_) PULGA_RETURN_IF_ERROR(Advance());
  if (ended_ || out.empty()) return size_t{0};
  out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), left_)));
  if (token_.kind == RecordReader::Kind::kRaw) {
    PULGA_RETURN_IF_ERROR(record_.ReadRaw(out));
    left_ -= out.size();
    return out.size();
  }
  PULGA_ASSIGN_OR_RETURN(const size_t n, ReadContent(out));
  left_ -= n;
  if (left_ == 0) {
    if (sum_.Finish() != token_.sum) Differ("content");
    file_.Reset();
  }
  return n;
}

}  // namespace pulga
