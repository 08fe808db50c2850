// The isolation report: which layers stand between a function and the board, each present, absent
// or degraded, and why. Of the board from what was probed; of a version from what its spawner found
// on itself and on a trial instance, and from what the set-up made of it. Nothing here makes a
// layer: it only tells.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/root_switch.h"
#include "sandbox/grants.h"
#include "sandbox/id_ranges.h"
#include "sandbox/kernel_features.h"

namespace pulga {

// Every layer by its name, in the order of docs/security.md; `features` as ProbeKernelFeatures
// says.
std::vector<Feature> BoardIsolation(const std::vector<Feature>& features);

// A version's layers as lines "name TAB state TAB detail". A spawner is not trusted with more than
// that: decoding drops what is not such a line, unknown states, odd characters, excess, and of a
// name all but the first, since what root said stands above it.
std::string EncodeLayers(const std::vector<Feature>& layers);
std::vector<Feature> DecodeLayers(std::string_view lines);

// In the launcher's answer the lines of a spawner stand below the warnings, each begun by a tab.
std::string WithLayers(const std::string& warnings, std::string_view layers);
struct SplitReport {
  std::vector<std::string> warnings;
  std::vector<Feature> layers;
};
SplitReport SplitLayers(std::string_view text);

// The calling process's own: the layers a spawner shares with all its instances.
// `capabilities`: those granted.
std::vector<Feature> OwnLayers(uint64_t capabilities);
// Of the bounding set found: what is in it by a grant degrades the layer, anything else breaks it.
Feature CapabilityLayer(uint64_t found, uint64_t granted);
// What every process of a version is held to, where it had more.
struct ResourceLimit {
  const char* name;
  int resource;
  uint64_t most;
};
// As getrlimit says now; `nofile` as an instance will have it.
Feature RlimitLayer(std::span<const ResourceLimit> limits, uint64_t nofile);
// Which host ids a version's are, and that its user namespace is another than ours.
Feature IdRangeLayer(const HostIds& ids, uint64_t version_id);
// A layer that stands, but where a grant opened it: degraded, and by what. As it is when by "".
Feature OpenedBy(const std::string& grants, Feature layer);
// All of a version's, by the grants in force now: their lines move when the file changes.
std::vector<Feature> WithGrants(std::vector<Feature> layers, const GrantsUsed& used);
// How the host's root is left; either way nothing of it has a path.
const char* WhatOldRoot(RootSwitch way);
// That refused system calls are counted (refusals.h): 0 or why they are not.
Feature RefusalLayer(int error);
// Landlock of `version` (LandlockVersion, which left `error` in errno when it is 0).
Feature LandlockLayer(int version, int error);

}  // namespace pulga
