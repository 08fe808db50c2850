// What of a version's limits came to be in its cgroups, as rows of the isolation report and as
// warnings: noted write by write, so that nothing is claimed that no kernel took. Pure.
#pragma once

#include <string>
#include <vector>

#include "sandbox/cgroup_dialect.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/kernel_features.h"

namespace pulga {

enum class WriteMade : uint8_t { kYes, kNo };

class CgroupReport {
 public:
  void Note(const CgroupWrite& write, WriteMade made);

  // One row for each kind of limit, those nobody noted as well.
  std::vector<Feature> Layers(const CgroupLayout& layout) const;
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::vector<Feature> noted_;
  std::vector<std::string> warnings_;  // limits this kernel does not enforce, in words
};

// How instances are frozen, by what this kernel does best: its freezer (v2's costs 3 us, v1's 80 us
// and needs nobody's help), else signals, which the launcher has to send.
enum class FreezeBy : uint8_t { kFreezer, kSignals, kNothing };
FreezeBy FreezeByOf(const CgroupLayout& layout);

// Of the freezer, which is no limit: whether the slots came with one.
enum class FreezerUse : uint8_t { kOpened, kNotAsked };
Feature FreezerLayer(const CgroupLayout& layout, FreezerUse use);

}  // namespace pulga
