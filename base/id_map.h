// The map of a user namespace, as /proc/PID/uid_map shows it. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pulga {

// One line of it.
struct IdExtent {
  uint32_t inside = 0;
  uint32_t host = 0;  // as the user namespace above counts, or who reads the file
  uint32_t count = 0;
};

// By `inside`; lines that are none are left out.
std::vector<IdExtent> ParseIdMap(std::string_view text);
bool MapsId(const std::vector<IdExtent>& map, uint64_t inside);

}  // namespace pulga
