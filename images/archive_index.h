// The members of an image archive, as the unpacker reports them one by one: enough to find JSON
// documents and layers by name in the plain file. Both sides of that report.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

enum class MemberType : uint32_t { kFile = 1, kSymlink = 2, kHardLink = 3 };

struct ArchiveMember {
  MemberType type = MemberType::kFile;
  uint64_t offset = 0;  // kFile: of its content in the archive
  uint64_t size = 0;    // kFile
  std::string target;   // kSymlink and kHardLink, as written
  std::string sha256;   // kFile: 64 hex digits of its content, where it was hashed as it came
};

// A name no image archive uses is not worth keeping.
inline constexpr size_t kMaxMemberNameBytes = 512;

struct NamedMember {
  std::string name;
  ArchiveMember member;
};
// The payload of a kMember event (job_events.h).
std::string EncodeMember(std::string_view name, const ArchiveMember& member);
std::optional<NamedMember> DecodeMember(std::string_view bytes);

class ArchiveIndex {
 public:
  // Later members of one name replace earlier ones.
  void Add(std::string name, ArchiveMember member) {
    members_[std::move(name)] = std::move(member);
  }
  bool Has(std::string_view name) const { return members_.find(name) != members_.end(); }

  // A member that is a regular file itself.
  const ArchiveMember* FindFile(std::string_view name) const;
  // The same, or what one symbolic or hard link inside the archive leads to.
  // kNotFound, or kInvalidArgument for names and links that leave the archive or go on.
  Result<ArchiveMember> FindLayer(std::string_view name) const;
  // Images as Docker before 1.10 saved them: each in <64 hex digits>/json. Later ones have that,
  // too, beside their manifest.json.
  bool HasOldImages() const;
  bool empty() const { return members_.empty(); }

 private:
  std::map<std::string, ArchiveMember, std::less<>> members_;
};

}  // namespace pulga
