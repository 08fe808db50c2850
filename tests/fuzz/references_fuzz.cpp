// Image references: whatever is typed, pulled or tagged, an answer that means the same when it is
// read again, and holds nothing but what a name may hold.
#include <algorithm>

#include "base/check.h"
#include "images/image_ref.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

bool IsNameText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._-/:@[]").find(c) != std::string_view::npos;
  });
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string digest = "@sha256:" + std::string(64, 'a');
  return {"hello",
          "hello:1",
          "library/hello:latest",
          "docker.io/library/hello",
          "index.docker.io/hello",
          "localhost:5000/a/b_c__d/e.f-g:Tag_1.2-3",
          "host.example:65535/x" + digest,
          "a:1" + digest,
          "[::1]:5000/x:y",
          "UPPER/name",
          "localhost/x",
          "a@sha512:" + std::string(128, '0'),
          "../../etc:passwd",
          std::string(64, 'f')};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)FamiliarName(text);
  (void)IsSha256Digest(text);
  const auto ref = ParseImageRef(text);
  if (!ref.ok()) {
    PULGA_CHECK(!NormalizeImageRef(text).ok());
    return 0;
  }
  const std::string normal = ref->ToString();
  PULGA_CHECK(IsNameText(normal) && normal.size() < 1024);
  PULGA_CHECK(normal.find("..") == std::string::npos || ref->tag.find("..") != std::string::npos);
  PULGA_CHECK(!ref->domain.empty() && !ref->repository.empty());
  PULGA_CHECK(!ref->tag.empty() || !ref->digest.empty());
  PULGA_CHECK(NormalizeImageRef(normal).value() == normal);
  PULGA_CHECK(NormalizeImageRef(ref->Familiar()).value() == normal);
  PULGA_CHECK(FamiliarName(normal) == ref->Familiar());
  return 0;
}
