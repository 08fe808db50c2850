#include "sandbox/swap_devices.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/file_io.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr std::string_view kBlank = " \t";
constexpr std::string_view kDevices = "/dev/";
constexpr uint64_t kUsualRate = 3;  // of lzo-rle, zstd and lz4 on heaps

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes blanks and backslashes as \ooo. What does not print stays as it is.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view code = text.substr(i, 4);
    if (code.size() == 4 && code[0] == '\\' && std::all_of(code.begin() + 1, code.end(), IsOctal)) {
      const int byte = (code[1] - '0') * 64 + (code[2] - '0') * 8 + (code[3] - '0');
      if (byte >= ' ' && byte <= '~') {
        out += static_cast<char>(byte);
        i += 3;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

// Takes the first word off.
std::string_view TakeWord(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(kBlank), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(kBlank));
  line.remove_prefix(word.size());
  return word;
}

// "/dev/zram0" that is a block device: a file may have any name. "partition" is any block device.
bool IsZram(std::string_view path, std::string_view type) {
  constexpr std::string_view kPrefix = "/dev/zram";
  if (type != "partition" || !path.starts_with(kPrefix)) return false;
  const std::string_view number = path.substr(kPrefix.size());
  return !number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Result<ActiveSwap> ParseSwaps(std::string_view text) {
  ActiveSwap out;
  bool head = true;
  for (std::string_view line : Split(text, '\n')) {
    if (line.find_first_not_of(kBlank) == std::string_view::npos) continue;
    const std::string_view path = TakeWord(line);
    const std::string_view type = TakeWord(line);
    if (head && path != "Filename") break;
    if (std::exchange(head, false)) continue;
    if (!path.starts_with('/') || type.empty()) {
      return Error{Code::kIo, 0, "/proc/swaps has a line nobody understands"};
    }
    out.any = true;
    if (IsZram(path, type)) {
      out.zram.emplace_back(path.substr(kDevices.size()));
    } else if (out.elsewhere.empty()) {
      out.elsewhere = Unescape(path);
    }
  }
  if (head) return Error{Code::kIo, 0, "/proc/swaps does not begin as it should"};
  return out;
}

Result<ActiveSwap> ReadSwaps() {
  const auto text = ReadFile("/proc/swaps");
  if (!text.ok() && text.error().sys_errno == ENOENT) return ActiveSwap();  // a kernel without swap
  if (!text.ok()) return text.error();
  return ParseSwaps(*text);
}

ZramUse ParseZramUse(std::string_view text) {
  text = text.substr(0, text.find('\n'));
  const auto stored = ParseUint(TakeWord(text));  // orig_data_size
  (void)TakeWord(text);                           // compr_data_size: without the allocator's waste
  const auto taken = ParseUint(TakeWord(text));   // mem_used_total
  return stored && taken ? ZramUse{*stored, *taken} : ZramUse();
}

ZramUse ReadZramUse(const ActiveSwap& swap) {
  ZramUse out;
  for (const std::string& device : swap.zram) {
    const auto text = ReadFile("/sys/block/" + device + "/mm_stat");
    const ZramUse one = text.ok() ? ParseZramUse(*text) : ZramUse();
    out.stored_bytes += one.stored_bytes;
    out.taken_bytes += one.taken_bytes;
  }
  return out;
}

uint64_t TakenInZram(uint64_t swapped, const ZramUse& use) {
  if (use.stored_bytes == 0) return swapped / kUsualRate;
  const double rate = static_cast<double>(use.taken_bytes) / static_cast<double>(use.stored_bytes);
  return static_cast<uint64_t>(static_cast<double>(swapped) * std::min(rate, 1.0));
}

Status MayPushOut(const ActiveSwap& swap, uint64_t swap_limit) {
  if (!swap.any) {
    return Error{Code::kUnsupported, 0, "this board has no swap: see pulga doctor --setup-zram"};
  }
  if (swap.elsewhere.empty() || swap_limit > 0) return OkStatus();
  return Error{Code::kUnsupported, 0,
               "the swap " + swap.elsewhere +
                   " is no zram, and limits.swap is 0: nothing of the function is written there"};
}

}  // namespace pulga
