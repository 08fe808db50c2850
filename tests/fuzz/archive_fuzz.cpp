// Whole archives: ingest, index, plan, and every layer's tar to its end.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>

#include "base/check.h"
#include "base/file_io.h"
#include "base/sys.h"
#include "images/archive_plan.h"
#include "images/byte_source.h"
#include "images/ingest.h"
#include "images/job_events.h"
#include "images/layer_path.h"
#include "images/tar_reader.h"
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
  Result<std::string> Read(const ArchiveMember& member) const override {
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
      FileRange range(fd, layer.member->offset, layer.member->size);
      const auto kind = SniffCompression(fd, layer.member->offset, layer.member->size);
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
  FileRange whole(input.get(), 0, size);
  ReadLayer(whole);
  lseek(input.get(), 0, SEEK_SET);
  UnpackOrder order;
  order.max_entries = 40;  // what a pipe holds while nobody reads it
  order.max_bytes = 4 << 20;
  int channel[2];
  PULGA_CHECK(pipe2(channel, O_CLOEXEC) == 0);
  const UniqueFd told(channel[0]);
  const UniqueFd plain = MemoryFile("");
  {
    const UniqueFd tell(channel[1]);
    if (!RunIngest(order, input.get(), plain.get(), tell.get()).ok()) return 0;
  }
  ArchiveIndex index;
  JobEventReader reader(told.get());
  while (true) {
    const auto event = reader.Next();
    PULGA_CHECK(event.ok());
    if (!event->has_value()) break;
    auto member = DecodeMember((*event)->payload);
    PULGA_CHECK(member.has_value());
    index.Add(std::move(member->name), std::move(member->member));
  }
  std::vector<std::string> warnings;
  const Files files(plain.get(), std::move(index));
  const auto images = PlanImport(files, {DetectHostAbility(), AnyPlatform::kStore, 8}, &warnings);
  if (images.ok()) ReadPlanned(plain.get(), *images);
  return 0;
}
