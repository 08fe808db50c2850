#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "images/image_ref.h"
#include "images/platform_choice.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;

const std::string kHex(64, 'a');

TEST(ImageRef, ReadsShortNamesAsDockerDoes) {
  const std::pair<std::string, std::string> cases[] = {
      {"hello", "docker.io/library/hello:latest"},
      {"hello:1", "docker.io/library/hello:1"},
      {"me/hello", "docker.io/me/hello:latest"},
      {"docker.io/hello", "docker.io/library/hello:latest"},
      {"index.docker.io/hello:2", "docker.io/library/hello:2"},
      {"localhost/x", "localhost/x:latest"},
      {"localhost:5000/x:y", "localhost:5000/x:y"},
      {"host.example/a/b__c/d-e.f:T_1.x", "host.example/a/b__c/d-e.f:T_1.x"},
      {"[::1]:5000/x", "[::1]:5000/x:latest"},
      {"Host.example/x", "Host.example/x:latest"},
      {"x@sha256:" + kHex, "docker.io/library/x@sha256:" + kHex},
      {"x:1@sha256:" + kHex, "docker.io/library/x:1@sha256:" + kHex},
  };
  for (const auto& [text, want] : cases) {
    const auto got = NormalizeImageRef(text);
    ASSERT_TRUE(got.ok()) << text << ": " << got.error().message;
    EXPECT_EQ(*got, want);
    EXPECT_EQ(NormalizeImageRef(*got).value(), want) << "normal names stay as they are";
    EXPECT_EQ(NormalizeImageRef(FamiliarName(*got)).value(), want);
  }
}

// A misspelt name must not become a host that is asked for it.
TEST(ImageRef, RefusesUpperCaseNamesInsteadOfAskingAHost) {
  for (const char* name : {"Foo/bar", "Hello", "foo/Bar:1", "host.example/Foo/bar", "FOO"}) {
    const auto ref = ParseImageRef(name);
    ASSERT_FALSE(ref.ok()) << name;
    EXPECT_THAT(ref.error().message, HasSubstr("lower-case")) << name;
  }
}

TEST(ImageRef, ShowsFamiliarNames) {
  EXPECT_EQ(FamiliarName("docker.io/library/hello:latest"), "hello:latest");
  EXPECT_EQ(FamiliarName("docker.io/me/hello:1"), "me/hello:1");
  EXPECT_EQ(FamiliarName("localhost:5000/x:y"), "localhost:5000/x:y");
  EXPECT_EQ(FamiliarName("docker.io/library/a/b:1"), "library/a/b:1");
  EXPECT_EQ(FamiliarName("not a name"), "not a name");
}

TEST(ImageRef, ShowsNoNameThatWouldMeanAnother) {
  const std::string hex(64, 'a');
  for (const std::string& name :
       {std::string("docker.io/a.b/c:latest"), std::string("docker.io/localhost/c:latest"),
        "docker.io/library/" + hex + ":latest"}) {
    EXPECT_EQ(FamiliarName(name), name);
    EXPECT_EQ(NormalizeImageRef(FamiliarName(name)).value(), name);
  }
}

TEST(ImageRef, RefusesWhatIsNoName) {
  const std::string cases[] = {"",
                               "../../x:latest",
                               "/x",
                               "x/",
                               "a//b",
                               "x:",
                               "x:-t",
                               ":tag",
                               "UPPER",
                               "a b",
                               "x;rm -rf",
                               "$(x)",
                               "x\n",
                               "a..b",
                               "a___b",
                               "-a",
                               "a-",
                               "x@md5:abc",
                               "x@sha256:ABC",
                               "x@sha256:" + kHex + "0",
                               kHex,
                               "x:" + std::string(129, 't'),
                               std::string(65536, 'a'),
                               "a/../b",
                               "bad_host.x/y",
                               "h:99999/x",
                               "h:/x",
                               "x@",
                               "@sha256:" + kHex};
  for (const std::string& text : cases) {
    const auto got = NormalizeImageRef(text);
    EXPECT_FALSE(got.ok()) << text.substr(0, 80) << " -> " << *got;
    EXPECT_THAT(got.ok() ? "" : got.error().message, HasSubstr("is no image name"));
  }
}

TEST(ImageRef, TellsDigestsFromNames) {
  EXPECT_TRUE(IsSha256Digest("sha256:" + kHex));
  EXPECT_FALSE(IsSha256Digest("sha256:" + kHex.substr(1)));
  EXPECT_FALSE(IsSha256Digest("sha512:" + kHex + kHex));
  EXPECT_FALSE(IsSha256Digest("hello"));
}

std::optional<int> Rank(const Platform& host, const Platform& image, Arm32 arm32 = Arm32::kNot) {
  return PlatformRank({host, arm32}, image);
}

TEST(PlatformChoice, PrefersTheExactVariantThenLowerOnesThenNone) {
  const Platform v7 = {"linux", "arm", "v7"};
  EXPECT_LT(Rank(v7, {"linux", "arm", "v7"}), Rank(v7, {"linux", "arm", "v6"}));
  EXPECT_LT(Rank(v7, {"linux", "arm", "v6"}), Rank(v7, {"linux", "arm", "v5"}));
  EXPECT_LT(Rank(v7, {"linux", "arm", "v5"}), Rank(v7, {"linux", "arm", ""}));
  EXPECT_EQ(Rank(v7, {"linux", "arm", "v8"}), std::nullopt);
  EXPECT_EQ(Rank({"linux", "arm", "v6"}, v7), std::nullopt);
}

TEST(PlatformChoice, TakesArm32OnlyWhereTheCoresHaveIt) {
  const Platform arm64 = {"linux", "arm64", ""};
  EXPECT_EQ(Rank(arm64, {"linux", "arm64", "v8"}), 0);
  EXPECT_EQ(Rank(arm64, {"linux", "arm64", "v9"}), std::nullopt);
  EXPECT_EQ(Rank(arm64, {"linux", "arm", "v7"}), std::nullopt);
  EXPECT_GT(Rank(arm64, {"linux", "arm", "v7"}, Arm32::kRuns), 0);
  EXPECT_EQ(Rank({"linux", "amd64", ""}, {"linux", "arm", "v7"}, Arm32::kRuns), std::nullopt);
}

TEST(PlatformChoice, RefusesOtherSystemsAndArchitectures) {
  const Platform host = {"linux", "amd64", ""};
  EXPECT_EQ(Rank(host, {"windows", "amd64", ""}), std::nullopt);
  EXPECT_EQ(Rank(host, {"linux", "386", ""}), std::nullopt);
  EXPECT_EQ(WrongPlatform({"linux", "arm", "v7"}, {host, Arm32::kNot}).message,
            "this image is linux/arm/v7, this board is linux/amd64");
  EXPECT_TRUE(CanRunHere(HostPlatform()).ok());
}

TEST(PlatformChoice, SaysWhyA64BitBoardTakesNo32BitImage) {
  const HostAbility no_compat = {{"linux", "arm64", ""}, Arm32::kNot};
  const HostAbility x86 = {{"linux", "amd64", ""}, Arm32::kNot};
  EXPECT_THAT(WrongPlatform({"linux", "arm", "v7"}, no_compat).message,
              ::testing::HasSubstr("linux/arm64, which runs no such 32-bit programs"));
  EXPECT_THAT(WrongPlatform({"linux", "386", ""}, x86).message,
              ::testing::HasSubstr("linux/amd64: 32-bit x86 programs are not run"));
  const HostAbility runs = {no_compat.platform, Arm32::kRuns};
  EXPECT_EQ(WrongPlatform({"linux", "arm", "v9"}, runs).message,
            "this image is linux/arm/v9, this board is linux/arm64");
}

}  // namespace
}  // namespace pulga
