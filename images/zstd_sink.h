// A zstd stream written to a file: the fastest useful level and a window of 512 KiB, for what is
// headers over and over again. Implemented in zstd_source.cpp, the one file that knows the library.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"

namespace pulga {

class ZstdSink {
 public:
  // Writes at `fd`'s position.
  explicit ZstdSink(int fd);
  ~ZstdSink();
  ZstdSink(const ZstdSink&) = delete;
  ZstdSink& operator=(const ZstdSink&) = delete;

  // Failures wait for Finish().
  void Write(std::string_view bytes);
  // Everything is on its way to the file, or what went wrong first.
  Status Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pulga
