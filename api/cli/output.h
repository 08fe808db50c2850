// What people see: tables, labels, colours (only on a terminal, never with NO_COLOR), a progress
// bar. Text that came from outside is made printable. Pure but for Print* and ProgressBar.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pulga::cli {

enum class Colour { kNone, kBold, kGreen, kYellow, kRed, kFaint };

class Style {
 public:
  explicit Style(bool coloured) : coloured_(coloured) {}
  static Style ForFd(int fd);  // a terminal, TERM is not dumb, NO_COLOR is not set
  std::string Paint(Colour colour, std::string_view text) const;
  bool coloured() const { return coloured_; }

 private:
  bool coloured_;
};

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};

// Columns as wide as their widest cell, two spaces apart, nothing trailing.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void Add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  std::string Render(const Style& style) const;

 private:
  std::vector<std::string> header_;  // empty: no header line
  std::vector<std::vector<Cell>> rows_;
};

std::string HumanAge(int64_t ms);            // "3s", "12m", "5h", "2d"
size_t DisplayWidth(std::string_view utf8);  // code points

void PrintOut(std::string_view text);
bool HasPrintedOut();
void PrintErr(std::string_view text);
// "pulga: message" on stderr.
void PrintError(std::string_view message);

// On stderr, redrawn at most ten times a second; nothing at all when stderr is no terminal.
class ProgressBar {
 public:
  // `total` 0 = unknown.
  ProgressBar(std::string label, uint64_t total);
  ~ProgressBar() { Clear(); }
  void Update(uint64_t done);
  void Clear();
  // The text of one state, for tests: "import x.tar  [=====>    ]  50%  12.0 MiB / 24.0 MiB  6.0
  // MiB/s".
  static std::string Line(const std::string& label, std::pair<uint64_t, uint64_t> done_of_total,
                          double seconds, size_t columns);

 private:
  std::string label_;
  uint64_t total_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace pulga::cli
