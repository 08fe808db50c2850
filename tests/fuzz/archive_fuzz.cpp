// Whole archives: detection, decompression, scan, index, plan, and every layer's tar to its end.
#include <sys/mman.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>

#include "base/check.h"
#include "base/file_io.h"
#include "base/sys.h"
#include "images/archive_kind.h"
#include "images/archive_plan.h"
#include "images/byte_source.h"
#include "images/layer_path.h"
#include "images/tar_reader.h"
#include "images/unpack_jobs.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/archive_builder.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

UniqueFd MemoryFile(std::string_view bytes) {
  UniqueFd fd(sys::MemfdCreate("fuzz", MFD_CLOEXEC));
  PULGA_CHECK(fd.valid() && WriteAll(fd.get(), bytes).ok());
  lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

class Files final : public ArchiveFiles {
 public:
  Files(int fd, ArchiveIndex index) : fd_(fd), index_(std::move(index)) {}
  const ArchiveIndex& index() const override { return index_; }
  Result<std::string> Read(const ArchiveMember& member, size_t limit) const override {
    if (member.size > limit) return Error{Code::kTooLarge, 0, "too large"};
    return ReadAt(fd_, static_cast<off_t>(member.offset), member.size);
  }

 private:
  int fd_;
  ArchiveIndex index_;
};

// As the unpacker reads a layer, without writing it.
void ReadLayer(ByteSource& source) {
  Meter meter(source, DigestAlgorithm::kSha256, 16 << 20);
  auto tar = TarReader::Open(meter);
  while (tar.ok()) {
    const auto entry = (*tar)->Next();
    if (!entry.ok() || *entry == nullptr) break;
    (void)ParseLayerPath((*entry)->name);
    while (true) {
      const auto block = (*tar)->ReadBlock();
      if (!block.ok() || !*block) break;
    }
  }
  (void)Drain(meter);
}

void ReadPlanned(int fd, const std::vector<PlannedImage>& images) {
  for (const PlannedImage& image : images) {
    for (const PlannedLayer& layer : image.layers) {
      FileRange range(fd, layer.member.offset, layer.member.size);
      const auto kind = SniffCompression(fd, layer.member.offset, layer.member.size);
      if (!kind.ok()) continue;
      const auto plain = MakeDecompressor(*kind, range);
      ReadLayer(plain != nullptr ? *plain : static_cast<ByteSource&>(range));
    }
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  using testing::ArchiveShape;
  using Compression = testing::LayerSpec::Compression;
  std::vector<std::string> seeds;
  testing::TarItem odd;
  odd.name = "x";
  odd.pax = {{"path", "d/" + std::string(120, 'p')}, {"SCHILY.xattr.user.a", "b"}, {"size", "5"}};
  odd.content = "12345";
  const std::string tar = testing::TarBuilder()
                              .Dir("d")
                              .File("d/f", "hello")
                              .Symlink("l", "d/f")
                              .HardLink("h", "d/f")
                              .Add(odd)
                              .GnuLong('L', std::string(130, 'g'))
                              .File("g", "")
                              .Finish()
                              .substr(0, 8192);
  seeds.push_back(tar);
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kDocker25, ArchiveShape::kOci,
                           ArchiveShape::kSkopeo}) {
    for (const auto compression : {Compression::kPlain, Compression::kGzip, Compression::kZstd}) {
      testing::ImageSpec image;
      image.layers = {{tar, compression}};
      image.tags = {"a:1"};
      seeds.push_back(testing::ArchiveBuilder(shape, {image}).Tar());
    }
  }
  seeds.push_back(testing::Gzip(seeds[1]));
  seeds.push_back(testing::Zstd(seeds[2]));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  setlocale(LC_CTYPE, "C.UTF-8");
  UniqueFd input = MemoryFile({reinterpret_cast<const char*>(data), size});
  const auto kind = DetectArchive(input.get(), size);
  PULGA_CHECK(kind.ok());
  UnpackOrder order;
  order.max_entries = 1000;
  order.max_bytes = 4 << 20;
  if (*kind == ArchiveKind::kGzip || *kind == ArchiveKind::kZstd) {
    UniqueFd plain = MemoryFile("");
    if (!RunDecompress(order, input.get(), plain.get()).ok()) return 0;
    input = std::move(plain);
    size = static_cast<size_t>(lseek(input.get(), 0, SEEK_END));
  }
  FileRange whole(input.get(), 0, size);
  ReadLayer(whole);
  const UniqueFd output = MemoryFile("");
  if (!RunScan(order, input.get(), output.get()).ok()) return 0;
  lseek(output.get(), 0, SEEK_SET);
  auto index = ArchiveIndex::Decode(ReadFd(output.get(), 8 << 20).value(), size);
  PULGA_CHECK(index.ok());
  std::vector<std::string> warnings;
  const Files files(input.get(), std::move(*index));
  const auto images = PlanImport(files, {DetectHostAbility(), AnyPlatform::kStore, 8}, &warnings);
  if (images.ok()) ReadPlanned(input.get(), *images);
  return 0;
}
