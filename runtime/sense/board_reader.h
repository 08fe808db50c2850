// BoardReader: BoardFacts and BoardReadings out of the kernel's files, under a root that tests
// fake. What is missing, cut or no such file is absent in the answer, never an error. The files are
// the kernel's own: a read costs microseconds (some firmware: a millisecond), so it may be done on
// the loop thread. Opens nothing that could block. Source: docs/board.md.
#pragma once

#include <string>
#include <vector>

#include "runtime/sense/readings.h"

namespace pulga {

class BoardReader {
 public:
  // `root` is "" or a directory without "/" at its end; `data_dir` is on the device whose writes
  // are timed, whatever the root.
  BoardReader(std::string root, const std::string& data_dir);

  const BoardFacts& facts() const { return facts_; }
  BoardReadings Read() const;
  const std::string& root() const { return root_; }

 private:
  std::string Text(const std::string& path, size_t limit = 4096) const;
  void ReadFacts();
  void ReadCores();
  void ReadZones();
  void ReadFrequencies(BoardReadings* readings) const;

  std::string root_;
  BoardFacts facts_;
  std::vector<std::string> frequency_dirs_;  // of each cpufreq policy
};

}  // namespace pulga
