// An AccessSpec inside a message of launch_protocol.h: fixed structs with counts, then their names
// and paths. Taking it bounds every count; CheckAccess() judges the values. Pure.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "sandbox/access_spec.h"
#include "sandbox/wire.h"

namespace pulga {

struct AccessHeader {
  uint64_t capabilities;
  uint16_t rules;
  uint16_t volumes;
  uint16_t devices;
  uint8_t network_mode;
  uint8_t zero;
};

struct NetworkRuleBody {
  uint8_t address[16];
  uint16_t first_port;
  uint16_t last_port;
  uint16_t name_bytes;
  uint8_t peer;
  uint8_t protocol;
  uint8_t prefix_bits;
  uint8_t zero;
};

struct VolumeBody {
  uint64_t size_bytes;
  uint16_t source_bytes;
  uint16_t path_bytes;
  uint8_t kind;
  uint8_t read_only;  // 0 or 1
  uint16_t layers;
};

struct DeviceBody {
  uint16_t name_bytes;
  uint16_t path_bytes;
  uint8_t lease;
  uint8_t zero;
};

void PutAccess(WireWriter& writer, const AccessSpec& access);
// kInvalidArgument on a count or a flag out of range; the reader itself tells of what is cut.
Result<AccessSpec> TakeAccess(WireReader& reader);

}  // namespace pulga
