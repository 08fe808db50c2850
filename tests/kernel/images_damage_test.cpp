// A thousand archives with one bit wrong, cut ones and ones that go on: refused or whole. The
// importer is the real one; its jobs run in this process, unconfined, so that sanitizers see every
// parser and a thousand take seconds. images_archive_test.cpp does a hundred with real processes.
#include <gmock/gmock.h>

#include <random>

#include "images/ingest.h"
#include "images/job_events.h"
#include "images/tree_list.h"
#include "images/tree_remove.h"
#include "images/unpack_jobs.h"
#include "tests/support/image_lab.h"
#include "tests/support/thread_job.h"

namespace pulga::testing {
namespace {

using Compression = LayerSpec::Compression;

UniqueFd OpenDir(const std::string& path) { return OpenFile(path, O_RDONLY | O_DIRECTORY).value(); }

// Layers without parents, below a folder.
class InlineUnpacker final : public UnpackRunner {
 public:
  explicit InlineUnpacker(std::string folder) : folder_(std::move(folder)) {}
  std::unique_ptr<RunningJob> Start(UnpackJob job) override {
    return std::make_unique<ThreadJob>([this, work = std::make_shared<UnpackJob>(std::move(job))] {
      Status status = Run(*work);
      if (!status.ok()) {
        (void)SendEvent(work->channel.get(), JobEventKind::kFailure, EncodeFailure(status.error()));
        status = Error{Code::kInvalidArgument, 0, "exit status 1"};
      }
      *work = UnpackJob();  // the other ends of its pipes wait for this
      return status;
    });
  }
  std::string PathOf(const LayerId& id) const { return folder_ + "/" + id.Hex(); }

 private:
  Status Unpack(const UnpackJob& job, const UnpackOrder& order) {
    const std::string staging = folder_ + "/.staging";
    PULGA_RETURN_IF_ERROR(MakeDirs(staging, 0755));
    const UniqueFd root = OpenDir(staging);
    PULGA_ASSIGN_OR_RETURN(UniqueFd times, OpenUnnamedFile(folder_));
    PULGA_ASSIGN_OR_RETURN(UniqueFd spare, OpenUnnamedFile(folder_));
    const UniqueFd nowhere(open("/dev/null", O_WRONLY | O_CLOEXEC));
    const int record = job.output.valid() ? job.output.get() : nowhere.get();
    const Status done =
        RunUnpackLayer(order, job.input.get(), job.channel.get(),
                       {root.get(), -1, std::move(times), std::move(spare), record});
    if (done.ok()) std::filesystem::rename(staging, PathOf(job.target));
    PULGA_RETURN_IF_ERROR(RemoveAll(OpenDir(folder_).get(), ".staging"));
    return done;
  }
  Status Run(const UnpackJob& job) {
    const auto order = UnpackOrder::Decode(job.request);
    switch (job.kind) {
      case UnpackKind::kIngest:
        return RunIngest(*order, job.input.get(), job.output.get(), job.channel.get());
      case UnpackKind::kUnpackLayer:
        return Unpack(job, *order);
      case UnpackKind::kRemove:
        return RemoveAll(OpenDir(folder_).get(), job.target.Hex());
      case UnpackKind::kList:
        return ListTree(OpenDir(PathOf(job.parents.at(0))).get(), job.output.get());
      default:
        return ListSums(OpenDir(PathOf(job.parents.at(0))).get(), job.output.get());
    }
  }
  std::string folder_;
};

class DamagedArchives : public ImageLab {
 protected:
  struct Good {
    const char* what;
    std::string bytes;
  };
  void SetUp() override {
    ImageLab::SetUp();
    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
  }
  static std::string Archive(ArchiveShape shape, Compression compression) {
    ImageSpec image;
    image.tags = {"hello:1"};
    image.layers = {{TarBuilder()
                         .Dir("etc")
                         .File("etc/motd", "of the day")
                         .File("hello", std::string(1500, 'h'), 0755)
                         .Symlink("link", "hello")
                         .HardLink("hard", "hello")
                         .Finish(),
                     compression}};
    return ArchiveBuilder(shape, {image}).Tar();
  }
  static std::vector<Good> GoodOnes() {
    return {{"OCI, gzip", Archive(ArchiveShape::kOci, Compression::kGzip)},
            {"docker 25, plain", Archive(ArchiveShape::kDocker25, Compression::kPlain)},
            {"legacy, zstd", Archive(ArchiveShape::kLegacy, Compression::kZstd)},
            {"skopeo, gzip around", Gzip(Archive(ArchiveShape::kSkopeo, Compression::kPlain))},
            {"OCI, zstd around", Zstd(Archive(ArchiveShape::kOci, Compression::kGzip))}};
  }
  // Refused for a reason that is the archive's, or the very tree; nothing stays either way.
  bool Whole(const std::string& bytes, const std::string& what) {
    auto spool = OpenUnnamedFile(dir_.path()).value();
    EXPECT_TRUE(WriteAll(spool.get(), bytes).ok());
    lseek(spool.get(), 0, SEEK_SET);
    const ImportReport report = inline_importer_.Import(std::move(spool), options_);
    if (!report.status.ok()) {
      EXPECT_NE(report.reason, ImportReason::kInternal) << what << report.status.error().message;
      EXPECT_TRUE(report.images.empty()) << what;
      for (const LayerId& id : report.layers_created) {  // a head start, for its caller to remove
        EXPECT_TRUE(inline_importer_.Remove(id).ok());
      }
      EXPECT_EQ(Names(inline_dir_), std::vector<std::string>{}) << what << ": left behind";
      return false;
    }
    const LayerId id = report.images.at(0).layers.at(0).chain_id;
    for (const auto& [ask, want] :
         {std::pair(&Importer::Tree, &tree_), {&Importer::Sums, &sums_}}) {
      const auto file = (inline_importer_.*ask)({id});
      const std::string found = ReadFd(file.value().get(), 1 << 20).value();
      if (want->empty()) *want = found;
      EXPECT_EQ(found, *want) << what;
    }
    EXPECT_TRUE(inline_importer_.Remove(id).ok());
    return true;
  }

  std::string inline_dir_ = [this] {
    const std::string path = dir_.path() + "/inline";
    EXPECT_TRUE(MakeDirs(path, 0700).ok());
    return path;
  }();
  InlineUnpacker inline_{inline_dir_};
  Importer inline_importer_{inline_, limits_, dir_.path()};
  std::string tree_;  // of the good image, from the first import
  std::string sums_;
};

TEST_F(DamagedArchives, WithOneOfAThousandBitsFlippedAreRefusedOrWhole) {
  std::mt19937 random(44);
  for (const Good& good : GoodOnes()) {
    ASSERT_TRUE(Whole(good.bytes, good.what));
    int whole = 0;
    for (int i = 0; i < 200; ++i) {
      std::string bytes = good.bytes;
      const size_t at = random() % bytes.size();
      bytes[at] ^= static_cast<char>(1 << random() % 8);
      whole += Whole(bytes, std::string(good.what) + ", byte " + std::to_string(at) + ": ");
    }
    EXPECT_LT(whole, 190) << good.what << ": padding and times alone can not be so many";
    EXPECT_GT(200 - whole, 20) << good.what;
  }
}

TEST_F(DamagedArchives, CutAtEvery512thByteAreRefusedOrWhole) {
  for (const Good& good : GoodOnes()) {
    ASSERT_TRUE(Whole(good.bytes, good.what));
    const size_t step = good.bytes.size() > 5000 ? 512 : 16;
    for (size_t cut = 0; cut < good.bytes.size(); cut += step) {
      const bool whole = Whole(good.bytes.substr(0, cut), good.what + std::to_string(cut));
      EXPECT_TRUE(!whole || cut > good.bytes.size() / 3) << good.what << " cut at " << cut;
    }
  }
}

TEST_F(DamagedArchives, WithAWrongSumOrMoreBehindTheirEndAreRefusedOrWhole) {
  for (const Good& good : GoodOnes()) {
    const std::string& bytes = good.bytes;
    const bool packed = bytes.starts_with("\x1f\x8b") || bytes.starts_with("\x28\xb5\x2f\xfd");
    EXPECT_EQ(Whole(bytes + "junk behind", good.what), !packed) << "a tar ends where it says";
    EXPECT_TRUE(Whole(bytes + std::string(5000, '\0'), good.what) || bytes[0] == '\x28');
    if (!bytes.starts_with("\x1f\x8b")) continue;
    for (size_t from_end = 1; from_end <= 8; ++from_end) {  // CRC-32 and size
      std::string wrong = bytes;
      wrong[wrong.size() - from_end] ^= 1;
      EXPECT_FALSE(Whole(wrong, good.what)) << from_end;
    }
  }
}

}  // namespace
}  // namespace pulga::testing
