// Names inside layers: what ParseLayerPath lets pass stays below the root, and RootWalker, in user
// space, finds the very directory the kernel finds with RESOLVE_IN_ROOT, through links of any kind.
// The first lines of an input are the targets of the links l0, l1, d/l2, d/e/l3; the last is looked
// up.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/check.h"
#include "base/file_io.h"
#include "base/sys.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "images/layer_path.h"
#include "images/root_walker.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

constexpr std::array kLinks = {"l0", "l1", "d/l2", "d/e/l3"};

// One tree for all inputs; only its links change.
class Tree {
 public:
  Tree() : dir_(TempDir::Create("/tmp/pulga-fuzz-").value()) {
    PULGA_CHECK(MakeDirs(dir_.path() + "/d/e/f", 0755).ok());
    PULGA_CHECK(WriteFile(dir_.path() + "/d/file", "").ok());
    root_ = UniqueFd(open(dir_.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  int root() const { return root_.get(); }

  void SetLink(size_t number, const std::string& target) {
    (void)unlinkat(root(), kLinks[number], 0);
    if (!target.empty()) (void)symlinkat(target.c_str(), root(), kLinks[number]);
  }
  // What the kernel finds; -1 and errno when it does not.
  UniqueFd Ask(const std::string& path) const {
    open_how how = {};
    how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT;
    return UniqueFd(sys::OpenAt2(root(), path.empty() ? "." : path.c_str(), how));
  }

 private:
  TempDir dir_;
  UniqueFd root_;
};

void CheckName(std::string_view raw) {
  const auto parsed = ParseLayerPath(raw);
  if (!parsed.ok()) return;
  const std::string& path = parsed->path;
  PULGA_CHECK(path.size() <= kMaxPathBytes && path.find('\0') == std::string::npos);
  PULGA_CHECK(CleanPath(path) == path);
  if (parsed->kind == EntryName::kMetadata) return;
  for (const std::string_view part : Split(path, '/')) {
    PULGA_CHECK(part != ".." && part != "." && part.size() <= kMaxNameBytes);
    PULGA_CHECK(path.empty() || !part.empty());
    PULGA_CHECK(parsed->kind == EntryName::kWhiteout || !part.starts_with(".wh."));
  }
  PULGA_CHECK(parsed->kind != EntryName::kWhiteout || !path.empty());
}

void CheckWalk(Tree& tree, const std::string& path) {
  RootWalker walker(tree.root());
  const auto found = walker.Resolve(path, RootWalker::Missing::kFail);
  const UniqueFd asked = tree.Ask(path);
  if (!asked.valid() && (errno == ENAMETOOLONG || errno == ENOSYS || errno == EINVAL)) return;
  // "file/" and "file/.." are looked at differently, and refused by both.
  PULGA_CHECK(found.ok() == asked.valid());
  if (!found.ok()) return;
  PULGA_CHECK(CleanPath(*found) == *found);
  struct stat mine = {};
  struct stat theirs = {};
  const std::string name = found->empty() ? "." : *found;
  PULGA_CHECK(fstatat(tree.root(), name.c_str(), &mine, AT_SYMLINK_NOFOLLOW) == 0);
  PULGA_CHECK(fstat(asked.get(), &theirs) == 0);
  PULGA_CHECK(mine.st_ino == theirs.st_ino && mine.st_dev == theirs.st_dev);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {"d/e\n/d\n..\n../l0\nl0/f",
          ".\n/\n../../../..\nl1\nd/l2/d/e/l3/d",
          "l1\nl0\n\n\nl0/x",
          "d/file\n./d//e/../e\n\n\nl0/../d",
          "\n\n\n\n../../etc",
          "a\n\n\n\na/./b//.wh.c",
          "/l1\nd\ne/l3\n../../l0\nd/l2/../l2",
          "\n\n\n\n.wh..wh..opq",
          "\n\n\n\nd/.wh..wh.plnk/1.2"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Tree tree;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckName(text);
  if (size > 4000 || text.find('\0') != std::string_view::npos) return 0;
  const auto lines = Split(text, '\n');
  for (size_t i = 0; i < kLinks.size(); ++i) {
    tree.SetLink(i, i + 1 < lines.size() ? std::string(lines[i]) : "");
  }
  for (const std::string_view line : lines) CheckName(line);
  CheckWalk(tree, std::string(lines.back()));
  return 0;
}
