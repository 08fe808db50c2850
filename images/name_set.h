// A set of names of bounded size, by their sums: names of 4 KiB each would be too much to keep. Two
// names with one sum are taken for one; only who makes both harms his own layer by that. Where a
// sum lies is not predictable, so none are slow to find.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace pulga {

class NameSet {
 public:
  static constexpr size_t kMost = 98'304;  // 1 MiB of sums, none without names

  NameSet();
  // `kind` tells equal names of different kinds apart. False: it is full, and not in it.
  bool Insert(char kind, std::string_view name);
  bool Contains(char kind, std::string_view name) const;
  void Erase(char kind, std::string_view name);

 private:
  struct Freer {
    void operator()(uint64_t* slots) const { free(slots); }
  };
  uint64_t SumOf(char kind, std::string_view name) const;
  // Where `sum` is, or would be put.
  size_t Place(uint64_t sum) const;

  uint64_t key_ = 0;
  size_t count_ = 0;
  std::unique_ptr<uint64_t[], Freer> slots_;  // 0: free
};

}  // namespace pulga
