#include "images/layer_verify.h"

#include <unistd.h>

#include "base/file_io.h"
#include "images/job_call.h"
#include "images/unpack_wire.h"

namespace pulga {

Result<std::vector<LayerDifference>> VerifyLayer(const VerifyTools& tools,
                                                 const LayerRecord& layer) {
  if (layer.record_bytes == 0) {
    return std::vector<LayerDifference>{
        {"", "has no record: it was imported before there were any; remove and import it again"}};
  }
  auto record = tools.records.Open(layer.chain_id);
  if (!record.ok() && record.error().code == Code::kNotFound) {
    return std::vector<LayerDifference>{{"", "the layer's record is missing"}};
  }
  if (!record.ok()) return record.error();
  PULGA_ASSIGN_OR_RETURN(const UniqueFd output, OpenUnnamedFile(tools.scratch_dir));
  UnpackOrder order;
  order.kind = UnpackKind::kVerify;
  order.diff_id = layer.diff_id;
  order.max_stream = kMaxDifferenceBytes;  // of output
  UnpackJob job;
  job.kind = order.kind;
  job.parents = {layer.chain_id};
  job.request = order.Encode();
  job.input = std::move(record).value();
  job.output = UniqueFd(dup(output.get()));
  if (!job.output.valid()) return LastError("duplicate a descriptor");
  const Status ran = RunJob(tools.runner, std::move(job));
  if (!ran.ok()) return ran.error();
  if (lseek(output.get(), 0, SEEK_SET) != 0) return LastError("rewind the findings");
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadFd(output.get(), kMaxDifferenceBytes));
  auto differences = DecodeDifferences(bytes);
  if (!differences) return Error{Code::kInternal, 0, "the unpacker's findings are damaged"};
  return std::move(*differences);
}

}  // namespace pulga
