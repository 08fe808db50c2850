// What layers may do to the tree and to nothing else: the real unpacker on generated layers.
#include <gmock/gmock.h>
#include <sys/xattr.h>

#include "images/name_set.h"
#include "tests/support/image_lab.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Layers : public ImageLab {};

TarItem Item(std::string name, char type, std::string link = "") {
  TarItem item;
  item.name = std::move(name);
  item.type = type;
  item.link = std::move(link);
  return item;
}

std::string One(const TarItem& item) { return TarBuilder().Add(item).Finish(); }

TEST_F(Layers, KeepTypesModesOwnersAndLinks) {
  TarItem file = Item("d/f", '0');
  file.content = "x";
  file.mode = 04755;
  file.uid = 33;
  file.gid = 42;
  const std::string tar = TarBuilder()
                              .Dir("d/", 01777)
                              .Add(file)
                              .Symlink("l", "/d/f")
                              .HardLink("h", "d/f")
                              .Add(Item("p", '6'))
                              .Finish();
  EXPECT_EQ(TreeOf({tar}),
            "d/f|f|4755|33:42|\nd|d|1777|0:0|\nh|f|4755|33:42|\nl|l|777|0:0|/d/f\n"
            "p|p|644|0:0|\n");
}

TEST_F(Layers, ListSumsOfRegularFilesByPath) {
  TreeOf({TarBuilder().File("a-b", "1").File("a/c", "1").Symlink("z", "a").Finish()});
  const std::string sum = Sha256Of("1");
  EXPECT_EQ(Sums(), sum + "  ./a-b\n" + sum + "  ./a/c\n");
}

TEST_F(Layers, RefuseNamesThatLeaveTheRoot) {
  for (const char* name : {"../../canary/x", "a/../../x", "..", "/../x", "./.."}) {
    EXPECT_THAT(FailureOf({One(Item(name, '0'))}), HasSubstr("leaves the root")) << name;
    EXPECT_EQ(report_.reason, ImportReason::kBadImage);
  }
}

TEST_F(Layers, ContainAbsoluteNames) {
  EXPECT_EQ(TreeOf({TarBuilder().File("/etc/evil", "1").File("//etc/two", "2").Finish()}),
            "etc/evil|f|644|0:0|\netc/two|f|644|0:0|\netc|d|755|0:0|\n");
}

TEST_F(Layers, WriteThroughLinksOnlyInsideTheRoot) {
  const std::string inside = canary_.substr(1) + "/x|f|644|0:0|";
  EXPECT_THAT(TreeOf({TarBuilder().Symlink("l", canary_).File("l/x", "1").Finish()}),
              HasSubstr(inside));
  EXPECT_THAT(
      TreeOf({TarBuilder().Symlink("l", canary_).Finish(), TarBuilder().File("l/x", "1").Finish()}),
      HasSubstr(inside));
}

TEST_F(Layers, ClampLinksThatClimbOut) {
  const std::string climbing = "../../../../../../../.." + canary_;
  EXPECT_THAT(TreeOf({TarBuilder().Symlink("a/b/l", climbing).File("a/b/l/x", "1").Finish()}),
              HasSubstr(canary_.substr(1) + "/x|f|"));
}

TEST_F(Layers, FollowLinkedParentsOfLowerLayers) {
  const std::string base = TarBuilder().Dir("usr/bin").Symlink("bin", "usr/bin").Finish();
  EXPECT_EQ(TreeOf({base, TarBuilder().File("bin/tool", "1", 0755).Finish()}),
            "bin|l|777|0:0|usr/bin\nusr/bin/tool|f|755|0:0|\nusr/bin|d|755|0:0|\n"
            "usr|d|755|0:0|\n");
}

TEST_F(Layers, RefuseARootThatIsNoDirectory) {
  for (const char* name : {".", "./", "/.", "/"}) {
    EXPECT_THAT(FailureOf({One(Item(name, '2', canary_))}), HasSubstr("root")) << name;
  }
}

TEST_F(Layers, GiveTheRootItsAttributes) {
  TarItem root = Item("./", '5');
  root.mode = 0711;
  ASSERT_TRUE(Import({One(root), TarBuilder().File("f", "").Finish()}).status.ok());
  struct stat st = {};
  ASSERT_EQ(stat(runner_.LayerPath(ChainIds()[1]).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0711u) << "inherited by the layer above";
}

TEST_F(Layers, RefuseHardLinksToWhatTheImageDoesNotHold) {
  for (const std::string& target : {canary_ + "/secret", "../../" + canary_ + "/secret"}) {
    EXPECT_THAT(FailureOf({TarBuilder().HardLink("h", target).Finish()}), HasSubstr("hard link"));
  }
  EXPECT_THAT(FailureOf({TarBuilder().Symlink("l", canary_).HardLink("h", "l/secret").Finish()}),
              HasSubstr("hard link"));
  EXPECT_THAT(FailureOf({TarBuilder().Dir("d").HardLink("h", "d").Finish()}),
              HasSubstr("hard link"));
}

TEST_F(Layers, HardLinkASymbolicLinkItselfAndReplaceIt) {
  const std::string target = canary_ + "/secret";
  EXPECT_EQ(TreeOf({TarBuilder().Symlink("s", target).HardLink("h", "s").Finish()}),
            "h|l|777|0:0|" + target + "\ns|l|777|0:0|" + target + "\n");
  EXPECT_EQ(
      TreeOf({TarBuilder().Symlink("s", target).HardLink("h", "s").File("h", "1", 0777).Finish()}),
      "h|f|777|0:0|\ns|l|777|0:0|" + target + "\n");
}

TEST_F(Layers, HardLinkFilesOfLowerLayers) {
  EXPECT_EQ(
      TreeOf({TarBuilder().File("a", "1").Finish(), TarBuilder().HardLink("d/b", "a").Finish()}),
      "a|f|644|0:0|\nd/b|f|644|0:0|\nd|d|755|0:0|\n");
  const std::string sum = Sha256Of("1");
  EXPECT_EQ(Sums(), sum + "  ./a\n" + sum + "  ./d/b\n");
}

TEST_F(Layers, HideAFileThatWasHardLinkedFirst) {
  EXPECT_EQ(TreeOf({TarBuilder().File("a", "1").Finish(),
                    TarBuilder().HardLink("b", "a").File(".wh.a", "").Finish()}),
            "b|f|644|0:0|\n");
  EXPECT_THAT(FailureOf({TarBuilder().File("a", "1").Finish(),
                         TarBuilder().File(".wh.a", "").HardLink("b", "a").Finish()}),
              HasSubstr("hard link"));
}

TEST_F(Layers, RefuseOddWhiteouts) {
  for (const char* name : {".wh..", ".wh...", ".wh.", "etc/.wh...", "a/.wh./b", "x/.wh.y/z"}) {
    EXPECT_THAT(FailureOf({One(Item("f", '0')), One(Item(name, '0'))}), HasSubstr("whiteout"))
        << name;
  }
}

TEST_F(Layers, HideFilesAndTreesOfLowerLayers) {
  const std::string base =
      TarBuilder().File("f", "1").File("d/a/b", "1").File("d/c", "1").Symlink("l", "f").Finish();
  EXPECT_EQ(TreeOf({base, TarBuilder().File(".wh.f", "").File(".wh.l", "").Finish()}),
            "d/a/b|f|644|0:0|\nd/a|d|755|0:0|\nd/c|f|644|0:0|\nd|d|755|0:0|\n");
  EXPECT_EQ(TreeOf({base, TarBuilder().File(".wh.d", "").Finish()}),
            "f|f|644|0:0|\nl|l|777|0:0|f\n");
  EXPECT_EQ(TreeOf({base, TarBuilder().File("d/.wh.a", "").File(".wh.gone", "").Finish()}),
            "d/c|f|644|0:0|\nd|d|755|0:0|\nf|f|644|0:0|\nl|l|777|0:0|f\n");
}

TEST_F(Layers, KeepWhatComesWithAWhiteoutOfItsName) {
  const std::string base = TarBuilder().File("d/old", "1").File("f", "1").Finish();
  const std::string tree = "d/new|f|644|0:0|\nd|d|755|0:0|\nf|f|600|0:0|\n";
  EXPECT_EQ(TreeOf({base, TarBuilder()
                              .File(".wh.d", "")
                              .File(".wh.f", "")
                              .Dir("d")
                              .File("d/new", "2")
                              .File("f", "2", 0600)
                              .Finish()}),
            tree);
  EXPECT_EQ(TreeOf({base, TarBuilder()
                              .Dir("d")
                              .File("d/new", "2")
                              .File("f", "2", 0600)
                              .File(".wh.d", "")
                              .File(".wh.f", "")
                              .Finish()}),
            tree);
}

TEST_F(Layers, HideLowerChildrenOfOpaqueDirectoriesWhateverTheOrder) {
  const std::string base =
      TarBuilder().File("d/old", "1").File("d/s/old", "1").File("o", "1").Finish();
  const std::string tree =
      "d/new|f|644|0:0|\nd/s/new|f|644|0:0|\nd/s|d|755|0:0|\nd|d|755|0:0|\no|f|644|0:0|\n";
  EXPECT_EQ(TreeOf({base, TarBuilder()
                              .Dir("d")
                              .File("d/.wh..wh..opq", "")
                              .File("d/new", "2")
                              .File("d/s/new", "2")
                              .Finish()}),
            tree);
  EXPECT_EQ(TreeOf({base, TarBuilder()
                              .Dir("d")
                              .File("d/new", "2")
                              .File("d/s/new", "2")
                              .File("d/.wh..wh..opq", "")
                              .Finish()}),
            tree);
}

TEST_F(Layers, RemoveNothingOutsideThroughWhiteouts) {
  const std::string link = TarBuilder().Symlink("l", canary_).Finish();
  EXPECT_EQ(TreeOf({link, TarBuilder().File("l/.wh.secret", "").Finish()}),
            "l|l|777|0:0|" + canary_ + "\n");
  EXPECT_EQ(TreeOf({link, TarBuilder().File("l/.wh..wh..opq", "").Finish()}),
            "l|l|777|0:0|" + canary_ + "\n");
  EXPECT_EQ(TreeOf({link, TarBuilder().File(".wh.l", "").Finish()}), "");
}

TEST_F(Layers, SkipWhatAufsLeftBehind) {
  EXPECT_EQ(TreeOf({TarBuilder()
                        .Dir(".wh..wh.plnk")
                        .File(".wh..wh.plnk/1.2", "x")
                        .File(".wh..wh.aufs", "")
                        .Dir(".wh..wh.orph")
                        .File("f", "")
                        .Finish()}),
            "f|f|644|0:0|\n");
}

TEST_F(Layers, ReplaceTypesByLaterLayers) {
  const std::string base = TarBuilder().File("a", "1").File("b/x", "1").Symlink("c", "b").Finish();
  EXPECT_EQ(TreeOf({base, TarBuilder().Dir("a").File("b", "2").Dir("c").File("c/y", "3").Finish()}),
            "a|d|755|0:0|\nb|f|644|0:0|\nc/y|f|644|0:0|\nc|d|755|0:0|\n");
}

TEST_F(Layers, LetTheLastOfEqualNamesWin) {
  TreeOf({TarBuilder().File("f", "1").File("f", "22", 0600).Finish()});
  EXPECT_EQ(Tree(), "f|f|600|0:0|\n");
  EXPECT_EQ(Sums(), Sha256Of("22") + "  ./f\n");
}

TEST_F(Layers, ChangeAttributesOfLowerDirectoriesAndKeepTheirContent) {
  EXPECT_EQ(TreeOf({TarBuilder().Dir("d").File("d/f", "1").Finish(),
                    TarBuilder().Dir("d", 0700).Finish()}),
            "d/f|f|644|0:0|\nd|d|700|0:0|\n");
}

TEST_F(Layers, SkipDevicesAndCountThem) {
  const std::string tar = TarBuilder()
                              .Add(Item("dev/sda", '4'))
                              .Add(Item("mem", '3'))
                              .Add(Item("whiteout", '3'))
                              .File("f", "")
                              .Finish();
  EXPECT_EQ(TreeOf({tar}), "f|f|644|0:0|\n");
  ASSERT_EQ(report_.warnings.size(), 1u);
  EXPECT_THAT(report_.warnings[0], HasSubstr("3 device nodes skipped"));
}

TEST_F(Layers, KeepUserAttributesAndDropAllOthers) {
  TarItem file = Item("f", '0');
  file.pax = {{"SCHILY.xattr.user.colour", "red"},
              {"SCHILY.xattr.user.overlay.opaque", "y"},
              {"SCHILY.xattr.trusted.overlay.redirect", "/x"},
              {"SCHILY.xattr.security.capability", std::string("\1\0\0\2\377\377", 6)}};
  TreeOf({One(file)});
  char value[64];
  EXPECT_EQ(getxattr(TopPath("f").c_str(), "user.colour", value, sizeof value), 3);
  for (const char* name :
       {"user.overlay.opaque", "trusted.overlay.redirect", "security.capability"}) {
    EXPECT_LT(getxattr(TopPath("f").c_str(), name, value, sizeof value), 0) << name;
  }
}

TEST_F(Layers, SquashForeignOwnersAndSaySo) {
  TarItem file = Item("f", '0');
  file.uid = 65536;
  file.gid = UINT32_MAX;
  EXPECT_EQ(TreeOf({One(file)}), "f|f|644|65534:65534|\n");
  EXPECT_THAT(report_.warnings.at(0), HasSubstr("65534"));
  file.gid = uint64_t{1} << 32;
  EXPECT_THAT(FailureOf({One(file)}), HasSubstr("gid"));
}

TEST_F(Layers, SetDirectoryTimesLast) {
  TarItem dir = Item("d", '5');
  dir.mtime = 12345;
  TreeOf({TarBuilder().Add(dir).File("d/f", "1").Finish()});
  struct stat st = {};
  ASSERT_EQ(stat(TopPath("d").c_str(), &st), 0);
  EXPECT_EQ(st.st_mtime, 12345);
}

TEST_F(Layers, LeaveTheTimesOfDirectoriesTheyOnlyPassThrough) {
  TarItem dir = Item("d", '5');
  dir.mtime = 12345;
  const std::string base = TarBuilder().Add(dir).File("d/a", "1").File("d/b", "1").Finish();
  for (const std::string& top :
       {TarBuilder().File("d/new", "1").Finish(), TarBuilder().File("d/s/new", "1").Finish(),
        TarBuilder().File("d/.wh.a", "").Finish(),
        TarBuilder().File("d/.wh..wh..opq", "").Finish()}) {
    ASSERT_TRUE(Import({base, top}).status.ok());
    struct stat st = {};
    ASSERT_EQ(stat(TopPath("d").c_str(), &st), 0);
    EXPECT_EQ(st.st_mtime, 12345);
  }
}

TEST_F(Layers, ReplaceTheAttributesOfDirectoriesTheyName) {
  TarItem dir = Item("d", '5');
  dir.pax = {{"SCHILY.xattr.user.old", "1"}};
  TarItem again = Item("d", '5');
  again.pax = {{"SCHILY.xattr.user.new", "2"}};
  ASSERT_TRUE(Import({One(dir), TarBuilder().Add(again).File("d/f", "").Finish()}).status.ok());
  char value[64];
  EXPECT_LT(getxattr(TopPath("d").c_str(), "user.old", value, sizeof value), 0);
  EXPECT_EQ(getxattr(TopPath("d").c_str(), "user.new", value, sizeof value), 1);
}

TEST_F(Layers, GiveImpliedDirectoriesToRoot) {
  TarItem dir = Item("d", '5');
  dir.mode = 02775;
  dir.gid = 50;
  EXPECT_EQ(TreeOf({TarBuilder().Add(dir).File("d/implied/f", "").Finish()}),
            "d/implied/f|f|644|0:0|\nd/implied|d|755|0:0|\nd|d|2775|0:50|\n");
}

TEST_F(Layers, ReplaceALinkThatLedToItsOwnPlace) {
  EXPECT_EQ(TreeOf({TarBuilder().Symlink("l", ".").Dir("l/l").File("l/f", "1").Finish()}),
            "l/f|f|644|0:0|\nl|d|755|0:0|\n");
  EXPECT_EQ(TreeOf({TarBuilder().Symlink("d/l", "/d").Dir("d").Finish(),
                    TarBuilder().Dir("d/l/l").File("d/l/f", "1").Finish()}),
            "d/l/f|f|644|0:0|\nd/l|d|755|0:0|\nd|d|755|0:0|\n");
}

TEST_F(Layers, KeepWhatReplacesAHardLinkedFileUnderAnOpaqueMarker) {
  EXPECT_EQ(TreeOf({TarBuilder().File("d/f", "1").Finish(), TarBuilder()
                                                                .HardLink("h", "d/f")
                                                                .File("d/.wh..wh..opq", "")
                                                                .File("d/f", "22", 0600)
                                                                .File("d/.wh..wh..opq", "")
                                                                .Finish()}),
            "d/f|f|600|0:0|\nd|d|755|0:0|\nh|f|644|0:0|\n");
}

TEST_F(Layers, HideAllOfManyFilesThatWereHardLinkedFirst) {
  constexpr int kFiles = 66'000;
  TarBuilder lower;
  TarBuilder upper;
  for (int i = 0; i < kFiles; ++i) {
    lower.File("d/" + std::to_string(i), "");
    upper.HardLink("h" + std::to_string(i % 2), "d/" + std::to_string(i));
  }
  upper.File("d/.wh..wh..opq", "");
  EXPECT_EQ(TreeOf({lower.Finish(), upper.Finish()}),
            "d|d|755|0:0|\nh0|f|644|0:0|\nh1|f|644|0:0|\n");
}

TEST(NameSets, HoldWhatIsPutInUntilTheyAreFull) {
  NameSet names;
  EXPECT_FALSE(names.Contains('d', "0"));
  names.Erase('d', "0");
  for (size_t i = 0; i < NameSet::kMost; ++i) ASSERT_TRUE(names.Insert('d', std::to_string(i)));
  EXPECT_TRUE(names.Insert('d', "0")) << "it is there";
  EXPECT_FALSE(names.Insert('l', "0")) << "another kind";
  EXPECT_FALSE(names.Contains('l', "0"));
  for (size_t i = 0; i < NameSet::kMost; i += 2) names.Erase('d', std::to_string(i));
  for (size_t i = 0; i < NameSet::kMost; ++i) {
    ASSERT_EQ(names.Contains('d', std::to_string(i)), i % 2 == 1) << i;
  }
  EXPECT_TRUE(names.Insert('l', "0"));
}

TEST_F(Layers, HideNothingBelowWhatIsNoDirectory) {
  const std::string base = TarBuilder().File("f", "1").Symlink("l", "f").Finish();
  EXPECT_EQ(TreeOf({base, TarBuilder()
                              .File("f/.wh.x", "")
                              .File("l/.wh.x", "")
                              .File("l/.wh..wh..opq", "")
                              .Finish()}),
            "f|f|644|0:0|\nl|l|777|0:0|f\n");
  EXPECT_THAT(FailureOf({base, TarBuilder().File("l/x", "").Finish()}),
              HasSubstr("not a directory"));
}

TEST_F(Layers, BelongToTheOwnersHostIds) {
  TreeOf({TarBuilder().File("f", "1").Finish()});
  struct stat st = {};
  ASSERT_EQ(stat(TopPath("f").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, ForkedUnpacker::kFirstHostId);
}

TEST_F(Layers, TakeNamesAsBytes) {
  const std::string odd[] = {"new\nline",
                             "esc\x1b[31m",
                             "tr ",
                             "co:lon",
                             "back\\slash",
                             "\xff\xfe",
                             "e\xcc\x81",
                             "\xc3\xa9",
                             "\xe2\x80\xae"
                             "rtl"};
  TarBuilder tar;
  for (const std::string& name : odd) tar.File(name, "");
  TarItem pax = Item("short", '0');
  pax.pax = {{"path", "p\xff\xfex"}};
  tar.Add(pax);
  ASSERT_TRUE(Import({tar.Finish()}).status.ok());
  for (const std::string& name : odd) EXPECT_TRUE(std::filesystem::exists(TopPath(name))) << name;
  EXPECT_TRUE(std::filesystem::exists(TopPath("p\xff\xfex")));
  EXPECT_THAT(Tree(), HasSubstr("new\\x0aline|f|"));
}

TEST_F(Layers, ComposeNoNamesOfPaxHeaders) {
  const std::string decomposed = "e\xcc\x81";
  TarItem file = Item("short", '0');
  file.pax = {{"path", decomposed}};
  TarItem link = Item("l", '2', "short");
  link.pax = {{"linkpath", decomposed}};
  const std::string layer = TarBuilder().Add(file).File("\xc3\xa9", "").Add(link).Finish();
  EXPECT_EQ(TreeOf({layer}),
            decomposed + "|f|644|0:0|\nl|l|777|0:0|" + decomposed + "\n\xc3\xa9|f|644|0:0|\n");
}

TEST_F(Layers, TakeLongNamesUpToTheKernelsLimits) {
  const std::string part(255, 'n');
  const std::string deep = part + "/" + part + "/" + part + "/f";
  EXPECT_THAT(TreeOf({TarBuilder().File(deep, "").Finish()}), HasSubstr(deep));
  EXPECT_THAT(TreeOf({TarBuilder().GnuLong('L', deep).File("short", "").Finish()}),
              HasSubstr(deep));
  EXPECT_THAT(FailureOf({TarBuilder().File(part + "n", "").Finish()}), HasSubstr("too long"));
  EXPECT_THAT(FailureOf({TarBuilder().File(std::string(100'000, 'x'), "").Finish()}),
              HasSubstr("too long"));
}

TEST_F(Layers, NestAsDeepAsPathsGoAndAreRemovedAgain) {
  std::string deep;
  while (deep.size() < 4000) deep += "d/";
  const std::string tree = TreeOf({TarBuilder().File(deep + "f", "1").Finish()});
  EXPECT_EQ(std::count(tree.begin(), tree.end(), '\n'), 2001);
  const std::string less_deep = deep.substr(0, 600) + "f";
  EXPECT_EQ(
      TreeOf({TarBuilder().File(less_deep, "1").Finish(), TarBuilder().File(".wh.d", "").Finish()}),
      "");
  std::string deeper;
  while (deeper.size() < 10000) deeper += "d/";
  EXPECT_THAT(FailureOf({TarBuilder().File(deeper + "f", "1").Finish()}), HasSubstr("too long"));
}

TEST_F(Layers, RefuseLinkLoops) {
  EXPECT_THAT(
      FailureOf({TarBuilder().Symlink("a", "b").Symlink("b", "a").File("a/f", "").Finish()}),
      HasSubstr("too many symbolic links"));
}

TEST_F(Layers, KeepHolesOfSparseFiles) {
  TarItem file = Item("GNUSparseFile.0/s", '0');
  const std::string map = "1\n1048576\n512\n";
  file.content = map + std::string(512 - map.size(), '\0') + std::string(512, 'x');
  file.pax = {{"GNU.sparse.major", "1"},
              {"GNU.sparse.minor", "0"},
              {"GNU.sparse.name", "s"},
              {"GNU.sparse.realsize", "1049088"}};
  TreeOf({One(file)});
  struct stat st = {};
  ASSERT_EQ(stat(TopPath("s").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 1049088);
  EXPECT_LT(st.st_blocks * 512, 65536);
}

TEST_F(Layers, MayEndWithTheirLastContent) {
  TarItem file = Item("f", '0');
  file.content = "abc";
  const std::string whole = TarBuilder().Dir("d").Add(file).unfinished();
  EXPECT_EQ(TreeOf({whole.substr(0, 1024 + 3)}), "d|d|755|0:0|\nf|f|644|0:0|\n");
  EXPECT_EQ(Sums(), Sha256Of("abc") + "  ./f\n");
  EXPECT_THAT(FailureOf({whole.substr(0, 1024 + 2)}), HasSubstr("damaged tar"));
}

TEST_F(Layers, WorkUpTo128AndNotBeyond) {
  std::vector<std::string> tars;
  for (int i = 0; i < 128; ++i) {
    tars.push_back(TarBuilder().File("f" + std::to_string(i), "x").Finish());
  }
  const std::string tree = TreeOf(tars);
  EXPECT_EQ(std::count(tree.begin(), tree.end(), '\n'), 128);
  tars.push_back(TarBuilder().File("more", "x").Finish());
  EXPECT_THAT(FailureOf(tars), HasSubstr("128 is the limit"));
  EXPECT_EQ(report_.reason, ImportReason::kTooLarge);
}

TEST_F(Layers, ArePublishedOnceHoweverOftenTheyAreListed) {
  const std::string tar = TarBuilder().File("f", "1").Finish();
  EXPECT_EQ(TreeOf({tar, tar}), "f|f|644|0:0|\n");
  EXPECT_EQ(report_.layers_created.size(), 2u) << "two chain ids";
}

}  // namespace
}  // namespace pulga::testing
