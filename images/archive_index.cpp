#include "images/archive_index.h"

#include <algorithm>

#include "base/text.h"
#include "images/digest.h"
#include "images/layer_path.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

Error Bad(std::string_view name, std::string_view why) {
  return {Code::kInvalidArgument, 0, Printable(name, 200) + ": " + std::string(why)};
}

// Where a link of the archive leads, as a member's name.
std::optional<std::string> LinkTarget(std::string_view name, const ArchiveMember& link) {
  if (link.target.starts_with('/')) return std::nullopt;
  if (link.type == MemberType::kHardLink) return CleanPath(link.target);
  return CleanPath(std::string(SplitPath(name).parent) + "/" + link.target);
}

}  // namespace

std::string EncodeMember(std::string_view name, const ArchiveMember& member) {
  FieldWriter out;
  out.PutBytes(name);
  out.PutU64(static_cast<uint64_t>(member.type));
  out.PutU64(member.offset);
  out.PutU64(member.size);
  out.PutBytes(member.target);
  out.PutBytes(member.sha256);
  return out.bytes();
}

std::optional<NamedMember> DecodeMember(std::string_view bytes) {
  FieldReader in(bytes);
  NamedMember out;
  out.name = in.Bytes();
  const uint64_t type = in.U64();
  out.member.offset = in.U64();
  out.member.size = in.U64();
  out.member.target = in.Bytes();
  out.member.sha256 = in.Bytes();
  if (!in.AtEnd() || type < 1 || type > 3 || out.name.size() > kMaxMemberNameBytes ||
      out.member.target.size() > kMaxMemberNameBytes ||
      (!out.member.sha256.empty() && !IsSha256Hex(out.member.sha256)) ||
      out.member.offset > INT64_MAX || out.member.size > INT64_MAX - out.member.offset) {
    return std::nullopt;
  }
  out.member.type = static_cast<MemberType>(type);
  return out;
}

const ArchiveMember* ArchiveIndex::FindFile(std::string_view name) const {
  const auto it = members_.find(name);
  if (it == members_.end() || it->second.type != MemberType::kFile) return nullptr;
  return &it->second;
}

Result<ArchiveMember> ArchiveIndex::FindLayer(std::string_view name) const {
  const auto clean = CleanPath(name);
  if (!clean || clean->empty() || name.starts_with('/') ||
      name.find('\0') != std::string_view::npos) {
    return Bad(name, "no name of a member of this archive");
  }
  const auto it = members_.find(*clean);
  if (it == members_.end()) return Error{Code::kNotFound, 0, Printable(name, 200) + " is missing"};
  if (it->second.type == MemberType::kFile) return it->second;
  const auto target = LinkTarget(*clean, it->second);
  if (!target) return Bad(name, "a link that leaves the archive");
  const ArchiveMember* file = FindFile(*target);
  if (file == nullptr) return Bad(name, "a link to something that is no file of this archive");
  return *file;
}

bool ArchiveIndex::HasOldImages() const {
  return std::any_of(members_.begin(), members_.end(), [](const auto& named) {
    const auto [parent, leaf] = SplitPath(named.first);
    return leaf == "json" && IsSha256Hex(parent);
  });
}

}  // namespace pulga
