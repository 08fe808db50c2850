// What pulga import --faasd reads: bbolt's format, and functions out of containerd's database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "api/cli/faasd/bolt_file.h"
#include "api/cli/faasd/faasd_data.h"
#include "base/file_io.h"
#include "base/temp_dir.h"
#include "tests/support/bolt_bytes.h"

namespace pulga::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

BoltTree SmallTree() {
  BoltTree tree;
  tree.values["k"] = "value";
  tree.buckets["b"].values["inner"] = std::string(300, 'x');
  tree.buckets["b"].buckets["c"].values[""] = "";
  return tree;
}

// Everything in it, whatever that is; at most so deep.
Status WalkAll(const BoltFile& file, const BoltFile::Bucket& in, int depth, size_t* bytes) {
  Status inner;
  const Status walked = file.Walk(in, [&](const BoltFile::Entry& entry) {
    *bytes += entry.key.size() + entry.value.size();
    if (!entry.is_bucket || depth == 0) return true;
    const auto bucket = BoltFile::BucketOf(entry);
    inner = bucket.ok() ? WalkAll(file, *bucket, depth - 1, bytes) : Status(bucket.error());
    return inner.ok();
  });
  return walked.ok() ? inner : walked;
}

TEST(Bolt, ReadsBucketsInValuesAndOnPages) {
  for (const BoltShape shape : {BoltShape::kInline, BoltShape::kPages}) {
    const auto file = BoltFile::Parse(BoltBytes(SmallTree(), shape));
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ(*file->Value(file->root(), "k"), "value");
    EXPECT_EQ(file->Value(file->root(), "no").error().code, Code::kNotFound);
    EXPECT_FALSE(file->Value(file->root(), "b").ok()) << "a bucket is no value";
    const auto bucket = file->Open(file->root(), "b");
    ASSERT_TRUE(bucket.ok());
    EXPECT_EQ(file->Value(*bucket, "inner")->size(), 300U);
    const auto below = file->Open(*bucket, "c");
    ASSERT_TRUE(below.ok());
    EXPECT_EQ(*file->Value(*below, ""), "");
    EXPECT_FALSE(file->Open(file->root(), "k").ok()) << "a value is no bucket";
  }
}

TEST(Bolt, ATornMetaPageLeavesTheOther) {
  const std::string whole = BoltBytes(SmallTree(), BoltShape::kPages);
  for (const size_t torn : {0U, 1U}) {
    std::string bytes = whole;
    bytes[torn * 4096 + 16 + 40] ^= 1;
    const auto file = BoltFile::Parse(bytes);
    ASSERT_TRUE(file.ok()) << torn;
    EXPECT_TRUE(file->Value(file->root(), "k").ok());
    bytes[(1 - torn) * 4096 + 16] ^= 1;
    EXPECT_THAT(BoltFile::Parse(bytes).error().message, HasSubstr("no database of bbolt"));
  }
}

TEST(Bolt, TheNewerMetaPageCounts) {
  std::string bytes = BoltBytes(SmallTree(), BoltShape::kPages);
  bytes[4096 + 16 + 16] = 99;  // the root of transaction 8: beyond the end
  SealBoltMeta(bytes, 1);
  const auto file = BoltFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_THAT(file->Value(file->root(), "k").error().message, HasSubstr("beyond its end"));
}

TEST(Bolt, APathWithoutAnEndEnds) {
  std::string bytes = BoltBytes(SmallTree(), BoltShape::kPages);
  const auto root = static_cast<size_t>(bytes[16 + 16]);
  bytes[root * 4096 + 16 + 8] = static_cast<char>(root);  // the branch leads to itself
  const auto file = BoltFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_THAT(file->Value(file->root(), "k").error().message, HasSubstr("without an end"));
}

TEST(Bolt, DamageIsAnErrorAndNothingWorse) {
  for (const BoltShape shape : {BoltShape::kInline, BoltShape::kPages}) {
    const std::string whole = BoltBytes(SmallTree(), shape);
    for (size_t size = 0; size < whole.size(); size += 97) {
      const auto file = BoltFile::Parse(whole.substr(0, size));
      size_t seen = 0;
      if (file.ok()) (void)WalkAll(*file, file->root(), 4, &seen);
    }
    for (size_t at = 3 * 4096UL; at < whole.size(); ++at) {
      if (whole[at] == 0 && at % 4096 > 700) continue;
      for (const int value : {0, 1, 0x7f, 0xff}) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(value);
        const auto file = BoltFile::Parse(bytes);
        ASSERT_TRUE(file.ok());
        size_t seen = 0;
        (void)WalkAll(*file, file->root(), 4, &seen);
        EXPECT_LE(seen, 64 * whole.size());
      }
    }
  }
}

TEST(Faasd, AnAnyHoldsAValue) {
  const std::string type = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
  const std::string any = "\x0a" + std::string(1, static_cast<char>(type.size())) + type +
                          "\x12\x81\x01" + std::string(129, '{');
  EXPECT_EQ(*AnyValue(any), std::string(129, '{'));
  for (const std::string& bad :
       {any.substr(0, 40), any + "\x08\x01", std::string("\x12"), std::string(12, '\xff')}) {
    EXPECT_FALSE(AnyValue(bad).ok());
  }
}

ContainerFacts Facts(const Json& spec) {
  ContainerFacts facts;
  facts.name = "hash";
  facts.name_space = "openfaas-fn";
  facts.image = "docker.io/library/hash:1";
  facts.spec = spec.dump();
  return facts;
}

TEST(Faasd, AFunctionIsWhatWasDeployed) {
  ContainerFacts facts = Facts(
      {{"process",
        {{"env", {"PATH=/usr/bin", "A=image", "B=1=2", "fprocess=sha512sum", "=x", "y"}}}},
       {"root", {{"readonly", true}}},
       {"mounts", {{{"destination", "/proc"}}, {{"destination", "/var/openfaas/secrets/api-key"}}}},
       {"linux", {{"resources", {{"memory", {{"limit", 41943040}}}, {"cpu", {{"quota", 5}}}}}}}});
  facts.image_env = {"A=image", "B=1"};
  facts.labels = {
      {"tier", "gold"}, {"com.openfaas.annotations.topic", "t"}, {"containerd.io/gc.root", "x"}};
  const auto function = FunctionOf(facts);
  ASSERT_TRUE(function.ok());
  EXPECT_EQ(Json::parse(function->deployment),
            Json::parse(R"({"service":"hash","namespace":"openfaas-fn",
      "image":"docker.io/library/hash:1","envProcess":"sha512sum","envVars":{"B":"1=2"},
      "labels":{"tier":"gold"},"annotations":{"topic":"t"},"secrets":["api-key"],
      "limits":{"memory":"40Mi"},"readOnlyRootFilesystem":true})"));
  EXPECT_THAT(function->secrets, ElementsAre("api-key"));
  EXPECT_THAT(function->notes, ElementsAre(HasSubstr("CPU quota")));
}

TEST(Faasd, ASpecMayLackEverything) {
  const auto function = FunctionOf(Facts(Json::object()));
  ASSERT_TRUE(function.ok());
  EXPECT_EQ(Json::parse(function->deployment)["limits"], Json());
  EXPECT_THAT(function->notes, ElementsAre(HasSubstr("128 MiB")));
  ContainerFacts none = Facts({});
  none.spec = "[1";
  EXPECT_THAT(FunctionOf(none).error().message, HasSubstr("no JSON"));
  for (const char* odd : {R"({"process":3,"mounts":{},"root":[],"linux":"x"})",
                          R"({"process":{"env":[1,null]},"mounts":[7]})"}) {
    none.spec = odd;
    EXPECT_TRUE(FunctionOf(none).ok()) << odd;
  }
}

TEST(Faasd, AProcessIsToldThatIsTheImagesOwnToo) {
  ContainerFacts facts = Facts({{"process", {{"env", {"fprocess=cat", "A=image"}}}}});
  facts.image_env = {"fprocess=cat", "A=image"};
  const auto function = FunctionOf(facts);
  ASSERT_TRUE(function.ok());
  EXPECT_EQ(Json::parse(function->deployment)["envProcess"], "cat");
  EXPECT_EQ(Json::parse(function->deployment)["envVars"], Json::object());
}

TEST(Faasd, WhatADaemonWouldRefuseIsToldBefore) {
  ContainerFacts facts = Facts(Json::object());
  const auto refused = [&facts]() -> std::string {
    const auto function = FunctionOf(facts);
    const Status checked = function.ok() ? CheckFunction(*function) : Status(function.error());
    return checked.ok() ? "" : checked.error().message;
  };
  EXPECT_EQ(refused(), "");
  facts.labels = {{"com.openfaas.scale.min", "2"}, {"com.openfaas.scale.max", "3"}};
  EXPECT_EQ(refused(), "");
  for (const char* bad : {"abc", "4"}) {  // no number; more than the most
    facts.labels["com.openfaas.scale.min"] = bad;
    EXPECT_THAT(refused(), HasSubstr("scale.min")) << bad;
  }
  facts.labels = {{"com.openfaas.annotations.topic", "cron-function"},
                  {"com.openfaas.annotations.schedule", "* * * * *"},
                  {"com.openfaas.annotations.timezone", "Mars/Olympus"}};
  EXPECT_THAT(refused(), HasSubstr("Mars/Olympus"));
  facts.labels.clear();
  for (const char* name : {"my_fun", "Up"}) {
    facts.name = name;
    EXPECT_THAT(refused(), HasSubstr("no function name")) << name;
    EXPECT_THAT(refused(), HasSubstr("stack file")) << name;
  }
  facts.name = "hash";
  facts.name_space = "Dev_1";
  EXPECT_THAT(refused(), HasSubstr("Dev_1"));
}

TEST(Faasd, WhatANamespaceLosesIsTold) {
  EXPECT_EQ(NamespaceNote({{"openfaas", "1"}}), "");
  EXPECT_THAT(NamespaceNote({{"openfaas", "true"}, {"owner", "me"}, {"a", "b"}}),
              HasSubstr("a=b, owner=me"));
}

TEST(Faasd, SecretsAreFoundInBothPlaces) {
  const auto dir = TempDir::Create("/tmp/pulga-faasd-");
  ASSERT_TRUE(dir.ok());
  const std::string secrets = dir->path() + "/var/lib/faasd-provider/secrets";
  EXPECT_THAT(ReadFaasd(dir->path()).error().message, HasSubstr("no faasd below"));
  ASSERT_TRUE(MakeDirs(secrets + "/dev").ok());
  for (const char* name : {"/old", "/dev/new", "/dev/.hidden"})
    ASSERT_TRUE(WriteFile(secrets + name, "x").ok());
  const auto data = ReadFaasd(dir->path());
  ASSERT_TRUE(data.ok()) << data.error().message;
  EXPECT_THAT(data->name_spaces, ElementsAre("dev", "openfaas-fn"));
  ASSERT_EQ(data->secrets.size(), 2U);
  EXPECT_EQ(data->secrets[0].path, secrets + "/dev/new");
  EXPECT_EQ(data->secrets[1].name_space, "openfaas-fn");
  EXPECT_THAT(data->problems, ElementsAre(HasSubstr("functions:")));
}

TEST(Faasd, ABlobsPathIsOfADigest) {
  const std::string hex(64, 'a');
  EXPECT_THAT(BlobPath("/card", "sha256:" + hex), ::testing::EndsWith("blobs/sha256/" + hex));
  for (const char* bad : {"sha256:../../etc", "", "sha256/x", "md5:aa"}) {
    EXPECT_EQ(BlobPath("/", bad), "");
  }
}

}  // namespace
}  // namespace pulga::cli
