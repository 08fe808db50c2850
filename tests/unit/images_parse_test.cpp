// The documents and names an archive brings: every wrong type, every limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "images/digest.h"
#include "images/image_config.h"
#include "images/json.h"
#include "images/layer_path.h"
#include "images/manifest.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string Config(const std::string& config) {
  return R"({"architecture":"amd64","os":"linux","config":)" + config +
         R"(,"rootfs":{"type":"layers","diff_ids":[")" + kDigest + R"("]}})";
}

TEST(LayerPaths, AreCleanedWithinTheRoot) {
  EXPECT_EQ(CleanPath("./a//b/../c/"), "a/c");
  EXPECT_EQ(CleanPath("/"), "");
  EXPECT_EQ(CleanPath("a/.."), "");
  EXPECT_EQ(CleanPath(".."), std::nullopt);
  EXPECT_EQ(CleanPath("a/../../b"), std::nullopt);
}

TEST(LayerPaths, TellWhiteoutsFromNames) {
  const auto kind = [](const char* name) { return ParseLayerPath(name).value().kind; };
  EXPECT_EQ(kind("a/b"), EntryName::kPlain);
  EXPECT_EQ(kind("a/.wh.b"), EntryName::kWhiteout);
  EXPECT_EQ(ParseLayerPath("a/.wh.b").value().path, "a/b");
  EXPECT_EQ(kind(".wh..wh..opq"), EntryName::kOpaque);
  EXPECT_EQ(ParseLayerPath("./d/.wh..wh..opq").value().path, "d");
  EXPECT_EQ(kind(".wh..wh.plnk/1.2"), EntryName::kMetadata);
  EXPECT_EQ(kind("x.wh.y"), EntryName::kPlain);
  for (const char* bad : {".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b", "../x"}) {
    EXPECT_FALSE(ParseLayerPath(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseLayerPath(std::string_view("a\0b", 3)).ok());
}

TEST(Digests, AreLowerHexOfTheRightLength) {
  EXPECT_TRUE(ParseDigest(kDigest));
  EXPECT_TRUE(ParseDigest("sha512:" + std::string(128, '0')));
  for (const std::string& bad :
       {std::string("md5:abc"), "SHA256:" + std::string(64, 'a'), "sha256:" + std::string(64, 'A'),
        std::string("sha256:../../x"), kDigest + "a", std::string("sha512:") + std::string(64, 'a'),
        std::string()}) {
    EXPECT_FALSE(ParseDigest(bad)) << bad;
  }
}

TEST(Digests, ChainAsTheSpecificationSays) {
  const std::string one = Sha256Hex("1");
  const LayerId first = NextChainId(std::nullopt, one);
  EXPECT_EQ(first.Hex(), one);
  EXPECT_EQ(NextChainId(first, Sha256Hex("2")).Hex(),
            Sha256Hex("sha256:" + one + " sha256:" + Sha256Hex("2")));
}

TEST(Json, RefusesBombsAndWhatParsersDisagreeOn) {
  const std::string deep(100'000, '[');
  std::string many = "[";
  for (int i = 0; i < 60'000; ++i) many += "1,";
  const std::string bad[] = {deep,
                             deep + std::string(100'000, ']'),
                             many + "1]",
                             "",
                             "{",
                             "[1,]",
                             "nul",
                             R"({"a":1,"a":2})",
                             "\xef\xbb\xbf{}",
                             std::string("{}\0", 3),
                             R"(["\ud800"])",
                             "[1e400]",
                             "[1" + std::string(400, '0') + "e99999]",
                             "['a']",
                             "[\"\xff\"]",
                             "[1] x"};
  for (const std::string& text : bad) {
    EXPECT_FALSE(JsonDocument::Parse("it", text).ok()) << text.substr(0, 40);
  }
  EXPECT_TRUE(JsonDocument::Parse("it", std::string(60, '[') + std::string(60, ']')).ok());
}

TEST(Config, ReadsWhatDockerWrites) {
  const auto parsed = ParseImageConfig(Config(
      R"({"Entrypoint":["/e"],"Cmd":["a","b"],"Env":["A=1","B=2","A=3","NOVALUE","=x"],
      "User":"app:1",
      "WorkingDir":"/w","ExposedPorts":{"8080/tcp":{},"53/udp":{},"99999999/tcp":{},"80":{}},
      "StopSignal":"SIGTERM","Labels":{"k":"v"},"Volumes":{"/etc":{}},
      "Healthcheck":{"Test":["CMD"]},"Shell":null})"));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_THAT(parsed->config.entrypoint, ElementsAre("/e"));
  EXPECT_THAT(parsed->config.cmd, ElementsAre("a", "b"));
  EXPECT_THAT(parsed->config.env, ElementsAre("A=3", "B=2"));
  EXPECT_THAT(parsed->config.exposed_ports, ElementsAre(80, 8080));
  EXPECT_EQ(parsed->config.user, "app:1");
  EXPECT_EQ(parsed->config.labels.at("k"), "v");
  EXPECT_EQ(parsed->platform, (Platform{"linux", "amd64", ""}));
}

TEST(Config, TakesNullForAbsent) {
  for (const char* config :
       {"null", "{}", R"({"Cmd":null,"Entrypoint":null,"Env":null,"Labels":null,
                              "ExposedPorts":null,"User":null,"WorkingDir":null})"}) {
    EXPECT_TRUE(ParseImageConfig(Config(config)).ok()) << config;
  }
}

TEST(Config, RefusesWrongTypesAndNamesTheField) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"Cmd":"sh"})", "Cmd"},
      {R"({"Entrypoint":{}})", "Entrypoint"},
      {R"({"Env":[1]})", "Env"},
      {R"({"Env":["A=\u0000"]})", "Env"},
      {R"({"User":5})", "User"},
      {R"({"WorkingDir":[]})", "WorkingDir"},
      {R"({"ExposedPorts":[]})", "Exposed"},
      {R"({"Labels":[]})", "Labels"},
      {R"({"Labels":{"a":1}})", "Labels"},
      {R"({"StopSignal":9})", "StopSignal"},
      {R"([])", "config"},
      {R"("x")", "config"},
      {R"({"Cmd":["a",null]})", "Cmd"},
      {"{\"Env\":[\"A=" + std::string(600'000, 'x') + "\"]}", "Env"}};
  for (const auto& [config, field] : cases) {
    const auto parsed = ParseImageConfig(Config(config));
    ASSERT_FALSE(parsed.ok()) << config.substr(0, 60);
    EXPECT_THAT(parsed.error().message, HasSubstr(field));
  }
}

TEST(Config, RefusesOddLayerLists) {
  for (const char* rootfs :
       {R"(null)", R"({})", R"({"type":"other","diff_ids":[]})", R"([])",
        R"({"type":"layers","diff_ids":["x"]})", R"({"type":"layers","diff_ids":"x"})",
        R"({"type":"layers","diff_ids":[null]})", R"({"type":"layers","diff_ids":{}})"}) {
    EXPECT_FALSE(ParseImageConfig(std::string(R"({"rootfs":)") + rootfs + "}").ok()) << rootfs;
  }
  for (const char* text : {"null", "[]", "\"x\"", "1"}) EXPECT_FALSE(ParseImageConfig(text).ok());
}

TEST(SavedImages, AreReadWithNullTags) {
  const auto saved =
      ParseSavedImages(R"([{"Config":"c","RepoTags":null,"Layers":["l"],"LayerSources":{}}])");
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(saved->at(0).config, "c");
  EXPECT_TRUE(saved->at(0).repo_tags.empty());
  EXPECT_TRUE(ParseSavedImages("[]").ok());
}

TEST(SavedImages, OfWrongTypesAreRefused) {
  for (const char* text :
       {"null", "{}", "[null]", "[1]", "\"x\"", R"([{}])", R"([{"Config":1}])",
        R"([{"Config":"c","Layers":"l"}])", R"([{"Config":"c","Layers":[1]}])",
        R"([{"Config":"c","Layers":[null]}])", R"([{"Config":"c","RepoTags":"t"}])",
        R"([{"Config":"c","RepoTags":[{}]}])", R"([{"Config":"a\u0000b"}])"}) {
    EXPECT_FALSE(ParseSavedImages(text).ok()) << text;
  }
}

std::string Descriptor(const std::string& digest, const std::string& size) {
  return R"({"digest":")" + digest + R"(","size":)" + size + "}";
}

TEST(OciDocuments, AreIndexOrManifestAndNotBoth) {
  const std::string one = Descriptor(kDigest, "1");
  EXPECT_TRUE(ParseOciDocument(R"({"manifests":null})").value().is_index);
  EXPECT_TRUE(ParseOciDocument(R"({"manifests":[)" + one + "]}").value().is_index);
  EXPECT_FALSE(ParseOciDocument(R"({"config":)" + one + R"(,"layers":[]})").value().is_index);
  for (const std::string& bad :
       {R"({"manifests":[],"layers":[]})" + std::string(),
        R"({"manifests":[],"config":)" + one + "}",
        R"({"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]})" +
            std::string(),
        R"({"mediaType":"application/vnd.oci.image.index.v1+json","layers":[],"config":)" + one +
            "}",
        std::string("[]"), std::string("null"), R"({"manifests":{}})" + std::string()}) {
    EXPECT_FALSE(ParseOciDocument(bad).ok()) << bad;
  }
}

TEST(OciDocuments, CheckDigestsAndSizes) {
  for (const auto& [digest, size] :
       std::initializer_list<std::pair<std::string, std::string>>{{kDigest, "-1"},
                                                                  {kDigest, "1.5"},
                                                                  {kDigest, "\"1\""},
                                                                  {kDigest, "null"},
                                                                  {kDigest, "9223372036854775808"},
                                                                  {"md5:x", "1"},
                                                                  {"sha256:../../x", "1"},
                                                                  {"", "1"}}) {
    EXPECT_FALSE(ParseOciDocument(R"({"manifests":[)" + Descriptor(digest, size) + "]}").ok())
        << digest << size;
  }
}

TEST(OciDocuments, LeaveOutAttestationsAndUnknownKinds) {
  const std::string index =
      R"({"manifests":[
    {"digest":")" +
      kDigest + R"(","size":1,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}},
    {"digest":")" +
      kDigest + R"(","size":1,"platform":{"os":"unknown","architecture":"unknown"}},
    {"digest":")" +
      kDigest + R"(","size":1,"mediaType":"application/x-other"},
    {"digest":")" +
      kDigest + R"(","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]})";
  const auto document = ParseOciDocument(index);
  ASSERT_TRUE(document.ok()) << document.error().message;
  ASSERT_EQ(document->manifests.size(), 1u);
  EXPECT_EQ(document->manifests[0].platform->variant, "v7");
}

TEST(OciDocuments, RefuseEncryptedLayers) {
  EXPECT_FALSE(
      ParseOciDocument(
          R"({"config":)" + Descriptor(kDigest, "1") + R"(,"layers":[{"digest":")" + kDigest +
          R"(","size":1,"mediaType":"application/vnd.oci.image.layer.v1.tar+encrypted"}]})")
          .ok());
}

TEST(JobFormat, SurvivesTheTripAndRefusesEveryCut) {
  UnpackOrder order;
  order.kind = UnpackKind::kUnpackLayer;
  order.offset = 512;
  order.size = 7;
  order.diff_id = Sha256Hex("x");
  const std::string bytes = order.Encode();
  ASSERT_TRUE(UnpackOrder::Decode(bytes));
  EXPECT_EQ(UnpackOrder::Decode(bytes)->diff_id, order.diff_id);
  for (size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_FALSE(UnpackOrder::Decode(bytes.substr(0, cut)));
  EXPECT_FALSE(UnpackOrder::Decode(bytes + "x"));
  const auto failure = DecodeFailure(EncodeFailure({Code::kTooLarge, 0, "too\nbig"}));
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, Code::kTooLarge);
}

}  // namespace
}  // namespace pulga
