#include "api/cli/archive_skim.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "base/file_io.h"

namespace pulga::cli {
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kWorthwhile = 64 << 10;
constexpr uint64_t kMaxPax = 64 << 10;
constexpr int kMaxMembers = 65536;  // as many as the daemon takes
constexpr size_t kHexDigits = 64;
constexpr std::string_view kHex = "0123456789abcdef";
constexpr uint64_t kMaxDocument = 1 << 20;
constexpr size_t kMaxDocuments = 256;

// Octal digits up to a NUL or space; nothing else, no base-256.
std::optional<uint64_t> Octal(std::string_view field) {
  uint64_t value = 0;
  size_t at = 0;
  while (at < field.size() && field[at] >= '0' && field[at] <= '7') {
    value = value * 8 + static_cast<uint64_t>(field[at++] - '0');
  }
  if (at == 0 || field.find_first_not_of(std::string_view("\0 ", 2), at) != field.npos) {
    return std::nullopt;
  }
  return value;
}

bool ChecksumFits(std::string_view header) {
  uint64_t sum = 8 * ' ';
  for (size_t at = 0; at < header.size(); ++at) {
    if (at < 148 || at >= 156) sum += static_cast<unsigned char>(header[at]);
  }
  // "0012345\0 " has leading spaces in some old writers: those go as a whole.
  return Octal(header.substr(148, 8)) == sum;
}

std::string_view Text(std::string_view field) { return field.substr(0, field.find('\0')); }

// blobs/sha256/HEX or HEX.tar; HEX/layer.tar names no content.
std::optional<std::string> DigestOf(std::string_view name) {
  if (name.starts_with("./")) name.remove_prefix(2);
  constexpr std::string_view kBlobs = "blobs/sha256/";
  if (name.starts_with(kBlobs)) {
    name.remove_prefix(kBlobs.size());
  } else if (name.ends_with(".tar")) {
    name.remove_suffix(4);
  } else {
    return std::nullopt;
  }
  const bool hex =
      name.size() == kHexDigits && name.find_first_not_of(kHex) == std::string_view::npos;
  return hex ? std::optional(std::string(name)) : std::nullopt;
}

// manifest.json lists layers from the base up, and before it names them for any other reason.
void AddDocument(std::string_view name, const FileRange& content, ArchiveOutline* outline) {
  auto& documents = outline->documents;
  if (content.size > kMaxDocument || documents.size() >= kMaxDocuments) return;
  const bool first = name == "manifest.json" || name == "./manifest.json";
  documents.insert(first ? documents.begin() : documents.end(), content);
}

// Does a PAX header say anything that changes where the next member lies or what it is called?
bool MovesOrNames(std::string_view pax) {
  for (const std::string_view key : {" size=", " path=", " linkpath=", " GNU.", " hdrcharset="}) {
    if (pax.find(key) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

std::optional<ArchiveOutline> SkimArchive(int fd, uint64_t file_size) {
  ArchiveOutline outline;
  std::set<std::string> seen;
  std::optional<uint64_t> pax_begin;  // of the header before this member
  uint64_t at = 0;
  for (int members = 0; members < kMaxMembers; ++members) {
    if (file_size < kBlock || at > file_size - kBlock) return std::nullopt;
    const auto read = ReadAt(fd, static_cast<off_t>(at), kBlock);
    if (!read.ok() || read->size() != kBlock) return std::nullopt;
    const std::string_view header = *read;
    if (header.find_first_not_of('\0') == std::string_view::npos) {
      outline.end = at;
      return pax_begin ? std::nullopt : std::optional(std::move(outline));
    }
    const std::string_view magic = header.substr(257, 8);
    const bool posix = magic == std::string_view("ustar\00000", 8);
    const bool gnu = magic == "ustar  " + std::string(1, '\0');
    const auto size = Octal(header.substr(124, 12));
    if ((!posix && !gnu) || !ChecksumFits(header) || !size) return std::nullopt;
    const uint64_t begin = pax_begin.value_or(at);
    at += kBlock;
    if (*size > file_size - at) return std::nullopt;
    const uint64_t data = at;
    at += (*size + kBlock - 1) / kBlock * kBlock;
    if (at > file_size) return std::nullopt;
    switch (header[156]) {
      case 'x': {
        if (pax_begin || *size > kMaxPax) return std::nullopt;
        const auto pax = ReadAt(fd, static_cast<off_t>(data), *size);
        if (!pax.ok() || MovesOrNames(*pax)) return std::nullopt;
        pax_begin = begin;
        continue;
      }
      case '2':
      case '5':
        if (*size != 0) return std::nullopt;
        break;
      case '0':
      case '\0': {
        // The prefix of a GNU header is something else.
        const std::string_view prefix = posix ? Text(header.substr(345, 155)) : "";
        std::string name(Text(header.substr(0, 100)));
        if (!prefix.empty()) name = std::string(prefix) + "/" + name;
        auto digest = *size >= kWorthwhile ? DigestOf(name) : std::nullopt;
        if (!digest) {
          AddDocument(name, {data, *size}, &outline);
          break;
        }
        if (!seen.insert(*digest).second) return std::nullopt;
        outline.blobs.push_back({std::move(*digest), {begin, at - begin}});
        break;
      }
      default:
        return std::nullopt;
    }
    pax_begin.reset();
  }
  return std::nullopt;
}

void SortAsNamed(int fd, ArchiveOutline* outline) {
  std::map<std::string, size_t, std::less<>> rank;
  for (const NamedBlob& blob : outline->blobs) rank[blob.digest] = SIZE_MAX;
  size_t next = 0;
  for (const FileRange& document : outline->documents) {
    const auto read = ReadAt(fd, static_cast<off_t>(document.offset), document.size);
    if (!read.ok()) continue;
    const std::string_view text = *read;
    for (size_t at = 0; at + kHexDigits <= text.size();) {
      const size_t other = text.find_first_not_of(kHex, at);
      const size_t size = (other == text.npos ? text.size() : other) - at;
      const auto named = size == kHexDigits ? rank.find(text.substr(at, size)) : rank.end();
      if (named != rank.end() && named->second == SIZE_MAX) named->second = next++;
      at += size + 1;
    }
  }
  std::stable_sort(outline->blobs.begin(), outline->blobs.end(),
                   [&rank](const NamedBlob& a, const NamedBlob& b) {
                     return rank.at(a.digest) < rank.at(b.digest);
                   });
}

std::vector<FileRange> RangesToSend(const ArchiveOutline& outline,
                                    const std::set<std::string>& known, uint64_t file_size) {
  std::vector<FileRange> out;
  const auto add = [&out](uint64_t begin, uint64_t end) {
    if (begin == end) return;
    const bool joins = !out.empty() && out.back().offset + out.back().size == begin;
    if (joins) {
      out.back().size += end - begin;
    } else {
      out.push_back({begin, end - begin});
    }
  };
  std::map<uint64_t, uint64_t> blobs;  // where they begin and end
  for (const NamedBlob& blob : outline.blobs) {
    blobs[blob.range.offset] = blob.range.offset + blob.range.size;
  }
  uint64_t at = 0;
  for (const auto& [begin, end] : blobs) {
    add(at, begin);
    at = end;
  }
  add(at, outline.end);
  for (const NamedBlob& blob : outline.blobs) {
    if (known.contains(blob.digest)) continue;
    add(blob.range.offset, blob.range.offset + blob.range.size);
  }
  add(outline.end, file_size);
  return out;
}

}  // namespace pulga::cli
