#include "images/tar_headers.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kTypeAt = 156;
constexpr uint64_t kMaxExtensionBytes = 1 << 20;  // as libarchive has it
constexpr std::string_view kExtensions = "xXgLKVA";
constexpr uint64_t kMaxId = UINT32_MAX;  // of any kernel; layers squash what is over 65535

Error Bad(std::string_view what, std::string_view value) {
  return {Code::kInvalidArgument, 0,
          "damaged tar: " + Printable(what, 100) + " is \"" + Printable(value, 40) +
              "\", which is no valid number"};
}

Error Damaged(std::string_view why) {
  return {Code::kInvalidArgument, 0, "damaged tar: " + std::string(why)};
}

// --- numbers of fixed headers

enum class Sign { kNone, kAllowed };

// Two's complement in all bits but the first, as GNU tar writes what octal digits can not hold.
std::optional<int64_t> ParseBase256(std::string_view field, Sign sign) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(field[i]); };
  int64_t value = (byte(0) & 0x40) != 0 ? (byte(0) & 0x7f) - 0x80 : byte(0) & 0x7f;
  if (value < 0 && sign == Sign::kNone) return std::nullopt;
  for (size_t i = 1; i < field.size(); ++i) {
    if (value > INT64_MAX / 256 || value < INT64_MIN / 256) return std::nullopt;
    value = value * 256 + byte(i);
  }
  return value;
}

// Octal digits after spaces, ended by a space or NUL or the field. All spaces and NULs: 0.
std::optional<int64_t> ParseOctal(std::string_view field) {
  if (field.find_first_not_of(std::string_view(" \0", 2)) == std::string_view::npos) return 0;
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  uint64_t value = 0;
  size_t digits = 0;
  for (; digits < field.size() && field[digits] >= '0' && field[digits] <= '7'; ++digits) {
    value = value * 8 + static_cast<uint64_t>(field[digits] - '0');
  }
  const bool ended = digits == field.size() || field[digits] == ' ' || field[digits] == '\0';
  if (digits == 0 || !ended) return std::nullopt;
  return static_cast<int64_t>(value);  // 12 digits at most
}

std::optional<int64_t> ParseField(std::string_view field, Sign sign) {
  const bool binary = (static_cast<unsigned char>(field[0]) & 0x80) != 0;
  return binary ? ParseBase256(field, sign) : ParseOctal(field);
}

struct Field {
  size_t at;
  size_t size;
  const char* name;
  Sign sign;
  uint64_t max;
};
constexpr std::array kFields = {Field{100, 8, "the mode", Sign::kNone, INT64_MAX},
                                Field{108, 8, "the uid", Sign::kNone, kMaxId},
                                Field{116, 8, "the gid", Sign::kNone, kMaxId},
                                Field{124, 12, "the size", Sign::kNone, INT64_MAX},
                                Field{136, 12, "the time", Sign::kAllowed, INT64_MAX}};

// Of GNU tar's own sparse members: where four pieces lie and how long they are; the whole size.
constexpr std::array<size_t, 9> kSparseFields = {386, 398, 410, 422, 434, 446, 458, 470, 483};

Status CheckFields(std::string_view header) {
  for (const Field& field : kFields) {
    const std::string_view text = header.substr(field.at, field.size);
    const auto value = ParseField(text, field.sign);
    if (!value || (*value > 0 && static_cast<uint64_t>(*value) > field.max)) {
      return Bad(field.name, text);
    }
  }
  if (header[kTypeAt] != 'S') return OkStatus();
  for (const size_t at : kSparseFields) {
    const std::string_view text = header.substr(at, 12);
    if (!ParseField(text, Sign::kNone)) return Bad("a piece of a sparse file", text);
  }
  return OkStatus();
}

// --- records of PAX headers

bool IsTime(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const size_t dot = text.find('.');
  const std::string_view fraction = dot == std::string_view::npos ? "" : text.substr(dot + 1);
  return ParseUint(text.substr(0, dot), INT64_MAX).has_value() &&
         fraction.find_first_not_of("0123456789") == std::string_view::npos;
}

bool IsNumber(std::string_view text, uint64_t max) { return ParseUint(text, max).has_value(); }

bool IsAnyOf(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

Status CheckRecord(std::string_view key, std::string_view value) {
  const bool name = IsAnyOf(key, {"path", "linkpath", "uname", "gname", "GNU.sparse.name"});
  if (key.empty() || key.find('\0') != std::string_view::npos) return Damaged("a record's name");
  if (name && value.find('\0') != std::string_view::npos) {
    return Damaged("the " + std::string(key) + " of a PAX header holds a NUL");
  }
  bool good = true;
  if (IsAnyOf(key, {"uid", "gid"})) good = IsNumber(value, kMaxId);
  if (IsAnyOf(key, {"mtime", "atime", "ctime", "LIBARCHIVE.creationtime"})) good = IsTime(value);
  if (IsAnyOf(key, {"size", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.numblocks",
                    "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.major",
                    "GNU.sparse.minor"})) {
    good = IsNumber(value, INT64_MAX);
  }
  if (key == "GNU.sparse.map" && !value.empty()) {
    for (const std::string_view part : Split(value, ',')) good = good && IsNumber(part, INT64_MAX);
  }
  return good ? OkStatus() : Status(Bad(key, value));
}

// "LENGTH KEY=VALUE\n" until the records end. The name of a sparse file beats its path.
Status ReadRecords(std::string_view records, PaxNames* names, bool* sparse_name) {
  while (!records.empty()) {
    const size_t space = records.substr(0, 20).find(' ');
    const auto length = space == std::string_view::npos
                            ? std::nullopt
                            : ParseUint(records.substr(0, space), records.size());
    if (!length || *length <= space + 1 || records[*length - 1] != '\n') {
      return Damaged("a record of a PAX header");
    }
    const std::string_view record = records.substr(space + 1, *length - space - 2);
    records.remove_prefix(*length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return Damaged("a record of a PAX header");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    PULGA_RETURN_IF_ERROR(CheckRecord(key, value));
    if (key == "linkpath") names->link_path = value;
    if (key == "path" && !*sparse_name) names->path = value;
    if (key == "GNU.sparse.name") {
      names->path = value;
      *sparse_name = true;
    }
  }
  return OkStatus();
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

Result<PaxNames> CheckHeaders(std::string_view headers) {
  PaxNames names;
  bool sparse_name = false;
  while (headers.size() >= kBlock) {
    const char type = headers[kTypeAt];
    PULGA_RETURN_IF_ERROR(CheckFields(headers.substr(0, kBlock)));
    if (kExtensions.find(type) == std::string_view::npos) break;
    const auto size = static_cast<uint64_t>(*ParseField(headers.substr(124, 12), Sign::kNone));
    if (size > kMaxExtensionBytes || size > headers.size() - kBlock) {
      return Damaged("a header that is too large");
    }
    if (type == 'x' || type == 'X') {
      PULGA_RETURN_IF_ERROR(ReadRecords(headers.substr(kBlock, size), &names, &sparse_name));
    }
    const size_t whole = kBlock + (size + kBlock - 1) / kBlock * kBlock;
    headers.remove_prefix(std::min(whole, headers.size()));
  }
  if (IsAscii(names.path)) names.path = {};
  if (IsAscii(names.link_path)) names.link_path = {};
  return names;
}

}  // namespace pulga
