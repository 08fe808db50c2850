// Imports many archives in one process, for tests written in Python: the real importer and the real
// unpacker, without a daemon. Needs root.
//
//   import_batch SCRATCH    SCRATCH/layers receives the layers and holds nothing at the end
//
// Reads "NAME<tab>PATH" lines. For each archive it writes SCRATCH/NAME.N.tree and .sums for the
// image N (0, 1, ...) and answers with lines of tab-separated fields, then "end":
//   image DIGEST REFS LAYERS    comma-separated; layers base first
//   warning TEXT
//   failed HTTP_STATUS MESSAGE
// Layers stay until the end of the input, so that later archives share them and the reader may
// look.
#include <fcntl.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/file_io.h"
#include "base/text.h"
#include "images/importer.h"
#include "tests/support/forked_unpacker.h"
#include "tests/support/ingest_harness.h"

namespace pulga {
namespace {

std::string OneLine(std::string_view text) { return Printable(text, 1000); }

class Batch {
 public:
  explicit Batch(const std::string& scratch)
      : scratch_(scratch),
        runner_(scratch + "/layers", PULGA_UNPACKER),
        importer_(runner_, ImportLimits(), scratch) {
    options_.any_platform = AnyPlatform::kStore;
    options_.claims = &stored_;
  }

  void Run(const std::string& name, const std::string& path) {
    auto spool = OpenFile(path, O_RDONLY);
    if (!spool.ok()) {
      printf("failed\t0\t%s\n", spool.error().message.c_str());
    } else {
      Tell(name, importer_.Import(std::move(*spool), options_));
    }
    printf("end\n");
    fflush(stdout);
  }

  Status RemoveAll() {
    for (const auto& [id, layer] : stored_.layers) PULGA_RETURN_IF_ERROR(importer_.Remove(id));
    if (!std::filesystem::is_empty(scratch_ + "/layers")) {
      return Error{Code::kInternal, 0, "something is left in " + scratch_ + "/layers"};
    }
    return OkStatus();
  }

 private:
  void Tell(const std::string& name, const ImportReport& report) {
    for (const std::string& text : report.warnings) printf("warning\t%s\n", OneLine(text).c_str());
    if (!report.status.ok()) {
      for (const LayerId& id : report.layers_created) (void)importer_.Remove(id);
      printf("failed\t%d\t%s\n", static_cast<int>(report.reason),
             OneLine(report.status.error().message).c_str());
      return;
    }
    for (size_t i = 0; i < report.images.size(); ++i) TellImage(name, i, report.images[i]);
  }

  void TellImage(const std::string& name, size_t number, const ImageRecord& image) {
    std::vector<LayerId> ids;
    std::string layers;
    std::string refs;
    for (const LayerRecord& layer : image.layers) {
      stored_.layers[layer.chain_id] = layer;
      ids.push_back(layer.chain_id);
      layers += (layers.empty() ? "" : ",") + layer.chain_id.Hex();
    }
    for (const std::string& ref : image.refs) refs += (refs.empty() ? "" : ",") + ref;
    const std::string file = scratch_ + "/" + name + "." + std::to_string(number);
    Save(file + ".tree", importer_.Tree(ids));
    Save(file + ".sums", importer_.Sums(ids));
    printf("image\t%s\t%s\t%s\n", image.digest.c_str(), refs.c_str(), layers.c_str());
  }

  static void Save(const std::string& path, const Result<UniqueFd>& listing) {
    if (!listing.ok()) {
      printf("failed\t500\t%s\n", OneLine(listing.error().message).c_str());
      return;
    }
    const auto text = ReadFd(listing->get(), 256 << 20);
    if (!text.ok() || !WriteFile(path, *text).ok()) printf("failed\t500\t%s\n", path.c_str());
  }

  std::string scratch_;
  testing::ForkedUnpacker runner_;
  Importer importer_;
  ImportOptions options_;
  testing::KnownLayers stored_;
};

int Main(const std::string& scratch) {
  if (!MakeDirs(scratch + "/layers", 0700).ok()) return 2;
  Batch batch(scratch);
  std::string line;
  while (std::getline(std::cin, line)) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) return 2;
    batch.Run(line.substr(0, tab), line.substr(tab + 1));
  }
  const Status removed = batch.RemoveAll();
  if (!removed.ok()) fprintf(stderr, "import_batch: %s\n", removed.error().message.c_str());
  return removed.ok() ? 0 : 1;
}

}  // namespace
}  // namespace pulga

int main(int argc, char** argv) {
  if (argc == 2) return pulga::Main(argv[1]);
  fprintf(stderr, "usage: import_batch SCRATCH\n");
  return 2;
}
