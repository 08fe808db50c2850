#include "images/record_jobs.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/file_io.h"
#include "base/text.h"
#include "images/layer_record.h"
#include "images/tree_record.h"

namespace pulga {
namespace {

Result<uint64_t> SizeOf(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return LastError("stat the layer's record");
  return static_cast<uint64_t>(st.st_size);
}

Error NotWhatItWas(const LayerDifference& difference) {
  return {Code::kIo, 0,
          "the layer on disk is not what was imported: " + Printable(difference.path, 200) + ": " +
              difference.what};
}

// The first difference of each path, in the order they were found.
class Findings {
 public:
  void Add(const std::vector<LayerDifference>& found) {
    for (const LayerDifference& difference : found) {
      if (!seen_.insert(difference.path).second) continue;
      if (differences_.size() < kMaxDifferences) differences_.push_back(difference);
    }
  }
  bool empty() const { return differences_.empty(); }
  const std::vector<LayerDifference>& all() const { return differences_; }

 private:
  std::set<std::string> seen_;
  std::vector<LayerDifference> differences_;
};

// What reassembling tells; kInvalidArgument for a record that cannot be read.
Status CompareContent(const UnpackOrder& request, RecordReader& record, int layer_fd,
                      Findings& findings) {
  LayerReassembler tar(record, layer_fd);
  Meter meter(tar, DigestAlgorithm::kSha256, UINT64_MAX);
  PULGA_RETURN_IF_ERROR(Drain(meter));
  findings.Add(tar.differences());
  if (meter.Finish().hex != request.diff_id && findings.empty()) {
    return Error{Code::kInvalidArgument, 0, "the layer's record belongs to another layer"};
  }
  return OkStatus();
}

Status CompareAll(const UnpackOrder& request, const RecordedLayer& layer, Findings& findings) {
  PULGA_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(layer.record_fd));
  RecordReader record(layer.record_fd, 0, size);
  PULGA_RETURN_IF_ERROR(CompareContent(request, record, layer.layer_fd, findings));
  PULGA_ASSIGN_OR_RETURN(const TreeComparison tree, CompareTree(layer.layer_fd, record));
  findings.Add(tree.differences);
  return OkStatus();
}

}  // namespace

Status RunExportLayer(const UnpackOrder& request, const RecordedLayer& layer) {
  PULGA_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(layer.record_fd));
  RecordReader record(layer.record_fd, 0, size);
  LayerReassembler tar(record, layer.layer_fd);
  Meter meter(tar, DigestAlgorithm::kSha256, request.max_stream);
  std::string buffer(65536, '\0');
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const size_t n, meter.Read(buffer));
    if (!tar.differences().empty()) return NotWhatItWas(tar.differences().front());
    if (n == 0) break;
    PULGA_RETURN_IF_ERROR(WriteAll(layer.output_fd, std::string_view(buffer).substr(0, n)));
  }
  if (meter.Finish().hex == request.diff_id) return OkStatus();
  return Error{Code::kIo, 0, "the layer on disk and its record do not make the imported layer"};
}

Status RunVerify(const UnpackOrder& request, const RecordedLayer& layer) {
  Findings findings;
  const Status compared = CompareAll(request, layer, findings);
  if (!compared.ok() && compared.error().code != Code::kInvalidArgument) return compared;
  if (!compared.ok()) findings.Add({{"", "its record is of no use: " + compared.error().message}});
  return WriteAll(layer.output_fd, EncodeDifferences(findings.all()));
}

}  // namespace pulga
