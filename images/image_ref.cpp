#include "images/image_ref.h"

#include "base/text.h"
#include "images/digest.h"

namespace pulga {
namespace {

// What a name without a registry means in every Docker client: part of the name, never contacted.
constexpr std::string_view kDefaultDomain = "docker.io";
constexpr std::string_view kLegacyDomain = "index.docker.io";
constexpr std::string_view kOfficialPrefix = "library/";
constexpr std::string_view kDefaultTag = "latest";
constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxTagBytes = 128;

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsAlnum(char c) { return IsLowerAlnum(c) || (c >= 'A' && c <= 'Z'); }

Error Bad(std::string_view text, std::string_view why) {
  return {Code::kInvalidArgument, 0,
          "'" + Printable(text, 100) + "' is no image name: " + std::string(why)};
}

// [a-z0-9]+ joined by one '.', one or two '_', or any number of '-'.
bool IsPathComponent(std::string_view part) {
  if (part.empty() || !IsLowerAlnum(part.front()) || !IsLowerAlnum(part.back())) return false;
  for (size_t i = 0; i < part.size();) {
    if (IsLowerAlnum(part[i])) {
      ++i;
      continue;
    }
    const char c = part[i];
    size_t run = 0;
    while (i < part.size() && part[i] == c) ++i, ++run;
    const bool fits = (c == '.' && run == 1) || (c == '_' && run <= 2) || c == '-';
    if (!fits || !IsLowerAlnum(part[i])) return false;
  }
  return true;
}

bool IsHostLabel(std::string_view label) {
  if (label.empty() || !IsAlnum(label.front()) || !IsAlnum(label.back())) return false;
  for (const char c : label) {
    if (!IsAlnum(c) && c != '-') return false;
  }
  return true;
}

bool IsDomain(std::string_view domain) {
  const size_t colon = domain.rfind(':');
  if (colon != std::string_view::npos && !domain.ends_with(']')) {
    if (!ParseUint(domain.substr(colon + 1), 65535)) return false;
    domain = domain.substr(0, colon);
  }
  if (domain.starts_with('[') && domain.ends_with(']')) {
    for (const char c : domain.substr(1, domain.size() - 2)) {
      const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!hex && c != ':') return false;
    }
    return domain.size() > 2;
  }
  for (const std::string_view label : Split(domain, '.')) {
    if (!IsHostLabel(label)) return false;
  }
  return true;
}

bool IsTag(std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTagBytes) return false;
  if (!IsAlnum(tag.front()) && tag.front() != '_') return false;
  for (const char c : tag) {
    if (!IsAlnum(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

// The part before the first '/' is a host only if it looks like one.
bool LooksLikeDomain(std::string_view part) {
  return part.find_first_of(".:[") != std::string_view::npos || part == "localhost";
}

}  // namespace

bool IsSha256Digest(std::string_view text) {
  const auto digest = ParseDigest(text);
  return digest && digest->algorithm == DigestAlgorithm::kSha256;
}

std::string ImageRef::ToString() const {
  std::string out = domain + "/" + repository;
  if (!tag.empty()) out += ":" + tag;
  if (!digest.empty()) out += "@" + digest;
  return out;
}

std::string ImageRef::Familiar() const {
  std::string_view path = repository;
  if (path.starts_with(kOfficialPrefix) &&
      path.find('/', kOfficialPrefix.size()) == std::string_view::npos) {
    path.remove_prefix(kOfficialPrefix.size());
  }
  // Shortened only where that is read as the same name again: "docker.io/a.b/c" is not "a.b/c".
  const size_t slash = path.find('/');
  const bool misleading =
      slash == std::string_view::npos ? IsSha256Hex(path) : LooksLikeDomain(path.substr(0, slash));
  std::string out;
  if (domain == kDefaultDomain && !misleading) {
    out = path;
  } else {
    out = domain + "/" + repository;
  }
  if (!tag.empty()) out += ":" + tag;
  if (!digest.empty()) out += "@" + digest;
  return out;
}

Result<ImageRef> ParseImageRef(std::string_view text) {
  if (text.empty()) return Bad(text, "it is empty");
  if (text.size() > 2 * kMaxNameBytes + kMaxTagBytes) return Bad(text, "it is too long");
  ImageRef ref;
  std::string_view name = text;
  if (const size_t at = name.find('@'); at != std::string_view::npos) {
    const auto digest = ParseDigest(name.substr(at + 1));
    if (!digest) return Bad(text, "after '@' comes sha256: and 64 lower-case hex digits");
    ref.digest = digest->ToString();
    name = name.substr(0, at);
  }
  const size_t slash = name.rfind('/');
  const size_t from = slash == std::string_view::npos ? 0 : slash;
  if (const size_t colon = name.find(':', from); colon != std::string_view::npos) {
    ref.tag = name.substr(colon + 1);
    if (!IsTag(ref.tag)) return Bad(text, "a tag is 1 to 128 letters, digits, '_', '.' or '-'");
    name = name.substr(0, colon);
  }
  if (IsSha256Hex(name)) return Bad(text, "64 hex digits are an image's id");
  const size_t first = name.find('/');
  if (first != std::string_view::npos && LooksLikeDomain(name.substr(0, first))) {
    ref.domain = name.substr(0, first);
    name = name.substr(first + 1);
    if (!IsDomain(ref.domain)) return Bad(text, "its host part is no host name");
    if (ref.domain == kLegacyDomain) ref.domain = kDefaultDomain;
  } else {
    ref.domain = kDefaultDomain;
  }
  if (ToLower(name) != name) return Bad(text, "the name of a repository must be lower-case");
  for (const std::string_view part : Split(name, '/')) {
    if (!IsPathComponent(part)) {
      return Bad(text, "its parts are lower-case letters and digits joined by '.', '_' or '-'");
    }
  }
  ref.repository = name;
  if (ref.domain == kDefaultDomain && name.find('/') == std::string_view::npos) {
    ref.repository = std::string(kOfficialPrefix) + ref.repository;
  }
  if (ref.domain.size() + ref.repository.size() + 1 > kMaxNameBytes) {
    return Bad(text, "it is too long");
  }
  if (ref.tag.empty() && ref.digest.empty()) ref.tag = kDefaultTag;
  return ref;
}

Result<std::string> NormalizeImageRef(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const ImageRef ref, ParseImageRef(text));
  return ref.ToString();
}

std::string FamiliarName(std::string_view normalised) {
  const auto ref = ParseImageRef(normalised);
  return ref.ok() ? ref->Familiar() : std::string(normalised);
}

}  // namespace pulga
