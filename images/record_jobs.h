// The unpacker's jobs that read a layer's record: the layer's tar again, and whether the layer is
// still what was unpacked. As unpack_jobs.h: locked in, without privileges over anything else.
#pragma once

#include "base/result.h"
#include "images/unpack_wire.h"

namespace pulga {

// The descriptors of one such job.
struct RecordedLayer {
  int record_fd = -1;
  int layer_fd = -1;  // its directory
  int output_fd = -1;
};

// kExportLayer: writes the tar. kIo when it would not be the one with request.diff_id; what was
// written until then is worthless.
Status RunExportLayer(const UnpackOrder& request, const RecordedLayer& layer);
// kVerify: writes EncodeDifferences() of what is not as it was unpacked; nothing when all is well.
Status RunVerify(const UnpackOrder& request, const RecordedLayer& layer);

}  // namespace pulga
