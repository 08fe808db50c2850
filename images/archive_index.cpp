#include "images/archive_index.h"

#include "base/text.h"
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
  return out.bytes();
}

Result<ArchiveIndex> ArchiveIndex::Decode(std::string_view bytes, uint64_t archive_size) {
  const Error damaged = {Code::kInternal, 0, "the archive's index is damaged"};
  FieldReader in(bytes);
  ArchiveIndex index;
  while (!in.empty()) {
    std::string name(in.Bytes());
    ArchiveMember member;
    const uint64_t type = in.U64();
    member.offset = in.U64();
    member.size = in.U64();
    member.target = in.Bytes();
    if (!in.ok() || type < 1 || type > 3 || name.size() > kMaxMemberNameBytes) return damaged;
    member.type = static_cast<MemberType>(type);
    if (member.type == MemberType::kFile &&
        (member.offset > archive_size || member.size > archive_size - member.offset)) {
      return Bad(name, "the archive is truncated inside this member");
    }
    index.members_[std::move(name)] = std::move(member);
  }
  return index;
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

}  // namespace pulga
