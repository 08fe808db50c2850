// manifest.json, OCI documents, configurations: whatever they say, an answer and no crash.
#include "images/image_config.h"
#include "images/manifest.h"
#include "images/unpack_wire.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/archive_builder.h"

using namespace pulga;  // NOLINT: the target's functions must be global

std::vector<std::string> FuzzSeeds() {
  testing::ImageSpec image;
  image.layers = {{testing::TarBuilder().File("f", "x").Finish()}};
  image.tags = {"a:1"};
  image.config = R"({"Entrypoint":["/e"],"Cmd":["a"],"Env":["A=1"],"User":"app:1","WorkingDir":"/w",
    "ExposedPorts":{"8080/tcp":{}},"StopSignal":"SIGTERM","Labels":{"k":"v"}})";
  const testing::ArchiveBuilder archive(testing::ArchiveShape::kDocker25, {image});
  std::vector<std::string> seeds = {UnpackOrder().Encode(), LayerResult().Encode()};
  for (const std::string& name : archive.names()) {
    if (archive.Get(name).starts_with("{") || archive.Get(name).starts_with("[")) {
      seeds.push_back(archive.Get(name));
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)ParseSavedImages(text);
  (void)ParseOciDocument(text);
  (void)CheckOciLayout(text);
  (void)ParseImageConfig(text);
  (void)UnpackOrder::Decode(text);
  (void)LayerResult::Decode(text);
  (void)DecodeFailure(text);
  return 0;
}
