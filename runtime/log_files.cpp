#include "runtime/log_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr const char* kNew = ".log";
constexpr const char* kOld = ".old";
constexpr uint64_t kSlackBytes = 1 << 20;

// A call's id is its caller's: whatever it is, it stays one field.
std::string OneField(std::string field) {
  for (char& c : field) {
    if (c == ' ' || c == '\n') c = '_';
  }
  return field.empty() ? "-" : field;
}
std::string FromDash(std::string_view field) {
  return field == "-" ? std::string() : std::string(field);
}

// Parts of a key hold no dot.
std::string NameOf(const FunctionKey& key) {
  return key.owner + "." + key.name_space + "." + key.name;
}

// From the second line on when the first one is what is left of a longer file.
void ParseInto(std::string_view text, std::deque<LogLine>& lines) {
  while (true) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return;  // cut by a crash, or still being written
    auto line = ParseLogLine(text.substr(0, end));
    if (line) lines.push_back(std::move(*line));
    text.remove_prefix(end + 1);
  }
}

// The newest of a file, `left` bytes at most, from a whole line on; `left` loses the file's size. A
// file is larger than the bound of now when that was higher as it was written.
Result<std::string> ReadNewest(const std::string& path, uint64_t& left) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_RDONLY | O_NOFOLLOW));
  struct stat st = {};
  if (PULGA_SYS(fstat, file.get(), &st) != 0) return LastError("stat " + path);
  const auto size = static_cast<uint64_t>(st.st_size);
  const uint64_t taken = std::min(size, std::exchange(left, size < left ? left - size : 0));
  PULGA_ASSIGN_OR_RETURN(std::string text,
                         ReadAt(file.get(), static_cast<off_t>(size - taken), taken));
  if (taken < size) text.erase(0, text.find('\n') + 1);  // what is left of a line
  return text;
}

}  // namespace

std::string FormatLogLine(const LogLine& line) {
  std::string out = std::to_string(line.unix_ms) + " " + std::to_string(line.version);
  for (const std::string* field : {&line.stream, &line.instance, &line.call_id}) {
    out += " " + OneField(*field);
  }
  const size_t text = out.size() + 1;
  out += " " + line.text;
  std::replace(out.begin() + static_cast<std::ptrdiff_t>(text), out.end(), '\n', ' ');
  return out + "\n";
}

std::optional<LogLine> ParseLogLine(std::string_view line) {
  std::array<std::string_view, 5> fields;
  for (std::string_view& field : fields) {
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos || blank == 0) return std::nullopt;
    field = line.substr(0, blank);
    line.remove_prefix(blank + 1);
  }
  const auto time = ParseUint(fields[0], INT64_MAX);
  const auto version = ParseUint(fields[1], UINT32_MAX);
  if (!time || !version) return std::nullopt;
  return LogLine{static_cast<int64_t>(*time), static_cast<uint32_t>(*version),
                 FromDash(fields[4]),         FromDash(fields[2]),
                 std::string(line),           FromDash(fields[3])};
}

std::deque<LogLine> SelectLines(std::deque<LogLine> lines, const LogQuery& query) {
  std::erase_if(lines, [&](const LogLine& line) { return !query.Wants(line); });
  if (query.tail && lines.size() > *query.tail) {
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(*query.tail));
  }
  return lines;
}

Status LogFiles::Append(const FunctionKey& key, std::string_view lines) {
  PULGA_RETURN_IF_ERROR(MakeDirs(dir_, 0700));
  const std::string path = dir_ + "/" + NameOf(key);
  const int flags = O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW;
  PULGA_ASSIGN_OR_RETURN(UniqueFd file, OpenFile(path + kNew, flags, 0600));
  struct stat st = {};
  if (PULGA_SYS(fstat, file.get(), &st) != 0) return LastError("stat " + path);
  const auto size = static_cast<uint64_t>(st.st_size);
  if (size != 0 && size + lines.size() > max_bytes_ / 2) {
    if (PULGA_SYS(rename, (path + kNew).c_str(), (path + kOld).c_str()) != 0) {
      return LastError("rename " + path);
    }
    PULGA_ASSIGN_OR_RETURN(file, OpenFile(path + kNew, flags, 0600));
  } else if (size != 0) {
    // What a crash left without an end must not swallow our first line.
    const auto last = ReadAt(file.get(), st.st_size - 1, 1);
    if (last.ok() && *last != "\n") PULGA_RETURN_IF_ERROR(WriteAll(file.get(), "\n"));
  }
  return WriteAll(file.get(), lines);
}

std::deque<LogLine> LogFiles::Read(const FunctionKey& key, const LogQuery& query) const {
  // What is written at once is bounded by the writer, and may pass the bound by that.
  uint64_t left = max_bytes_ + kSlackBytes;
  std::array<std::string, 2> texts;  // the older first; with it there is no gap before the newer
  for (const size_t part : {1, 0}) {
    auto text = ReadNewest(dir_ + "/" + NameOf(key) + (part == 0 ? kOld : kNew), left);
    if (text.ok()) {
      texts[part] = std::move(*text);
    } else if (text.error().code != Code::kNotFound) {
      LogWarning("read a function's log: " + text.error().message);
    }
  }
  std::deque<LogLine> lines;
  for (const std::string& text : texts) ParseInto(text, lines);
  return SelectLines(std::move(lines), query);
}

void LogFiles::Remove(const FunctionKey& key) const {
  for (const char* part : {kOld, kNew}) {
    const std::string path = dir_ + "/" + NameOf(key) + part;
    if (PULGA_SYS(unlink, path.c_str()) != 0 && errno != ENOENT) {
      LogWarning(LastError("remove a function's log").message);
    }
  }
}

void LogFiles::Sweep(const std::set<FunctionKey>& keep) const {
  std::set<std::string> known;
  for (const FunctionKey& key : keep) {
    for (const char* part : {kOld, kNew}) known.insert(NameOf(key) + part);
  }
  const auto dir = OpenFile(dir_, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!dir.ok()) return;  // nothing was ever written
  const auto names = ListNames(dir->get());
  if (!names.ok()) return LogWarning(names.error().message);
  for (const std::string& name : *names) {
    if (name == "." || name == ".." || known.contains(name)) continue;
    if (unlinkat(dir->get(), name.c_str(), 0) != 0) {
      LogWarning(LastError("remove the log " + Printable(name)).message);
    }
  }
}

}  // namespace pulga
