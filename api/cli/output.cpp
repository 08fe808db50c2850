#include "api/cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/file_io.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr size_t kBarWidth = 24;

bool printed_out = false;

const char* Code(Colour colour) {
  switch (colour) {
    case Colour::kNone:
      return "";
    case Colour::kBold:
      return "\x1b[1m";
    case Colour::kGreen:
      return "\x1b[32m";
    case Colour::kYellow:
      return "\x1b[33m";
    case Colour::kRed:
      return "\x1b[31m";
    case Colour::kFaint:
      return "\x1b[2m";
  }
  return "";
}

// Terminal control bytes in data must not reach the terminal.
std::string Tame(std::string_view text) {
  std::string out;
  for (char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    out += control ? '?' : c;
  }
  return out;
}

size_t Columns(int fd) {
  winsize size = {};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Style Style::ForFd(int fd) {
  const char* no_colour = getenv("NO_COLOR");
  const char* term = getenv("TERM");
  const bool dumb = term == nullptr || strcmp(term, "dumb") == 0;
  return Style(isatty(fd) == 1 && !dumb && (no_colour == nullptr || *no_colour == '\0'));
}

std::string Style::Paint(Colour colour, std::string_view text) const {
  if (!coloured_ || colour == Colour::kNone || text.empty()) return std::string(text);
  return Code(colour) + std::string(text) + "\x1b[0m";
}

size_t DisplayWidth(std::string_view utf8) {
  return static_cast<size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string Table::Render(const Style& style) const {
  std::vector<std::vector<Cell>> lines;
  if (!header_.empty()) {
    std::vector<Cell> head;
    for (const std::string& name : header_) head.push_back({name, Colour::kBold});
    lines.push_back(std::move(head));
  }
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  std::vector<size_t> widths;
  for (auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) {
      line[i].text = Tame(line[i].text);
      widths[i] = std::max(widths[i], DisplayWidth(line[i].text));
    }
  }
  std::string out;
  for (const auto& line : lines) {
    size_t padding = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      if (!line[i].text.empty()) {
        out += std::string(padding, ' ') + style.Paint(line[i].colour, line[i].text);
        padding = 0;
      }
      padding += widths[i] - DisplayWidth(line[i].text) + 2;
    }
    out += '\n';
  }
  return out;
}

std::string HumanAge(int64_t ms) {
  const int64_t s = ms / 1000;
  if (s < 60) return std::to_string(s) + "s";
  if (s < 3600) return std::to_string(s / 60) + "m";
  if (s < 48 * 3600) return std::to_string(s / 3600) + "h";
  return std::to_string(s / 86400) + "d";
}

void PrintOut(std::string_view text) {
  printed_out = printed_out || !text.empty();
  (void)WriteAll(STDOUT_FILENO, text);
}
bool HasPrintedOut() { return printed_out; }
void PrintErr(std::string_view text) { (void)WriteAll(STDERR_FILENO, text); }

void PrintError(std::string_view message) {
  const Style style = Style::ForFd(STDERR_FILENO);
  PrintErr(style.Paint(Colour::kRed, "pulga:") + " " + Tame(message) + "\n");
}

ProgressBar::ProgressBar(std::string label, uint64_t total)
    : label_(std::move(label)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      begun_(std::chrono::steady_clock::now()) {}

std::string ProgressBar::Line(const std::string& label, std::pair<uint64_t, uint64_t> done_of_total,
                              double seconds, size_t columns) {
  const auto [done, total] = done_of_total;
  std::string out = label + "  ";
  if (total != 0) {
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const size_t filled = static_cast<size_t>(part * static_cast<double>(kBarWidth));
    std::string bar(filled, '=');
    if (filled < kBarWidth) bar += '>';
    bar.resize(kBarWidth, ' ');
    const std::string percent = std::to_string(static_cast<int>(part * 100));
    out += "[" + bar + "] " + std::string(3 - std::min<size_t>(3, percent.size()), ' ') + percent +
           "%  ";
  }
  out += HumanBytes(done);
  if (total != 0) out += " / " + HumanBytes(total);
  if (seconds > 0.2)
    out += "  " + HumanBytes(static_cast<uint64_t>(static_cast<double>(done) / seconds)) + "/s";
  if (out.size() >= columns) out.resize(columns - 1);
  return out;
}

void ProgressBar::Update(uint64_t done) {
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || (drawn_ && now - last_ < kRedraw && done != total_)) return;
  last_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - begun_).count();
  PrintErr("\r\x1b[K" + Line(label_, {done, total_}, seconds, Columns(STDERR_FILENO)));
}

void ProgressBar::Clear() {
  if (std::exchange(drawn_, false)) PrintErr("\r\x1b[K");
}

}  // namespace pulga::cli
