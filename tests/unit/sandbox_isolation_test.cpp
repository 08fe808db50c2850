#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>

#include "base/sys.h"
#include "sandbox/apparmor.h"
#include "sandbox/feature_shelf.h"
#include "sandbox/grants_file.h"
#include "sandbox/instance_trial.h"
#include "sandbox/isolation.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using enum FeatureState;

const Feature& Layer(const std::vector<Feature>& layers, std::string_view name) {
  static const Feature none;
  const Feature* found = FindFeature(layers, name);
  EXPECT_NE(found, nullptr) << name;
  return found == nullptr ? none : *found;
}

TEST(Isolation, OfABoardThatHasEverythingIsAllPresent) {
  const auto layers = BoardIsolation({{"namespace.user", kPresent, "", ""},
                                      {"seccomp", kPresent, "", ""},
                                      {"landlock", kPresent, "ABI 7", ""},
                                      {"cgroup.memory", kPresent, "v2", ""}});
  for (const char* name : {"namespaces", "user_namespace", "capabilities", "no_new_privs",
                           "seccomp", "landlock", "cgroup.memory", "read_only_root"}) {
    EXPECT_EQ(Layer(layers, name).state, kPresent) << name;
  }
  EXPECT_EQ(Layer(layers, "landlock").detail, "ABI 7");
}

TEST(Isolation, NamesWhatIsMissingAndWhy) {
  const auto layers = BoardIsolation({{"namespace.net", kAbsent, "EINVAL", "another kernel"},
                                      {"namespace.pid", kPresent, "", ""},
                                      {"landlock", kAbsent, "not in this kernel", ""}});
  EXPECT_EQ(Layer(layers, "namespaces").state, kAbsent);
  EXPECT_THAT(Layer(layers, "namespaces").detail, HasSubstr("namespace.net: EINVAL"));
  EXPECT_EQ(Layer(layers, "landlock").state, kAbsent);
  EXPECT_THAT(Layer(layers, "landlock").detail, HasSubstr("not in this kernel"));
  EXPECT_EQ(Layer(layers, "cgroup.io").state, kAbsent) << "never claimed unseen";
}

TEST(Isolation, OfAUsersDaemonClaimsNothingThatOnlyRootHas) {
  std::vector<Feature> features = {
      {"cgroup.delegation", kAbsent, "", "how to"},
      {"rootless.ids", kPresent, "65535 ids", ""},
      {"namespace.cgroup", kPresent, "", ""},
      {"cgroup.memory", kAbsent, "no cgroup with it was given to this user", ""},
      {"cgroup.io", kDegraded, "no cgroup with it was given to this user", ""}};
  const auto layers = BoardIsolation(features);
  EXPECT_EQ(Layer(layers, "cgroup_view").state, kAbsent) << "nothing to show";
  EXPECT_EQ(Layer(layers, "cgroup.io").state, kAbsent) << "not there is not half there";
  EXPECT_EQ(Layer(layers, "cgroup.io").detail, "no cgroup with it was given to this user");
  EXPECT_THAT(Layer(layers, "network").detail, HasSubstr("no outbound network"));
  EXPECT_THAT(Layer(layers, "id_range").detail, HasSubstr("/etc/subuid"));
  features[1].state = kDegraded;
  EXPECT_THAT(Layer(BoardIsolation(features), "id_range").detail, HasSubstr("one id"));
}

TEST(Isolation, ATrialInstanceThatSharesAnythingWithItsSpawnerIsNoInstance) {
  const NamespaceIds spawners = {{1, 2, 3, 4, 5}};
  InstanceSight seen = {{{11, 12, 13, 14, 15}}, ST_RDONLY | ST_NOSUID | ST_NODEV | ST_RELATIME};
  const auto layers = JudgeInstance(seen, spawners);
  ASSERT_TRUE(layers.ok());
  EXPECT_THAT(*layers, SizeIs(5));
  EXPECT_EQ(Layer(*layers, "namespace.mount").state, kPresent);
  for (size_t i = 0; i < 5; ++i) {
    InstanceSight shares = seen;
    shares.own.ids[i] = spawners.ids[i];
    const auto judged = JudgeInstance(shares, spawners);
    ASSERT_FALSE(judged.ok()) << i;
    EXPECT_EQ(judged.error().code, Code::kPermission);
    EXPECT_THAT(judged.error().message, HasSubstr("is the spawner's"));
  }
  for (const unsigned long flag : {ST_RDONLY, ST_NOSUID, ST_NODEV}) {
    InstanceSight lacks = seen;
    lacks.root_flags &= ~flag;
    EXPECT_FALSE(JudgeInstance(lacks, spawners).ok()) << flag;
  }
}

TEST(Isolation, LandlockSaysWhyItIsNotUsed) {
  EXPECT_EQ(LandlockLayer(2, 0).state, kPresent);
  EXPECT_EQ(LandlockLayer(1, 0).state, kAbsent);
  EXPECT_THAT(LandlockLayer(1, 0).detail, HasSubstr("renames"));
  EXPECT_THAT(LandlockLayer(0, EOPNOTSUPP).detail, HasSubstr("lsm="));
  EXPECT_THAT(LandlockLayer(0, ENOSYS).detail, HasSubstr("not in this kernel"));
}

TEST(Isolation, AppArmorTellsAMissingProfileFromAMissingKernel) {
  EXPECT_EQ(AppArmorLayer(0).state, kPresent);
  EXPECT_THAT(AppArmorLayer(ENOENT).detail, HasSubstr("not loaded"));
  EXPECT_THAT(AppArmorLayer(ENOENT).advice, HasSubstr("apparmor_parser"));
  EXPECT_EQ(AppArmorLayer(ENODEV).state, kAbsent);
}

// Only a file that is not there says that the kernel has no AppArmor.
TEST(Isolation, AppArmorThatCouldNotBeAskedForIsNoMissingKernel) {
  sys::FailNthCall(1, ENOENT);
  EXPECT_EQ(AskForAppArmor(), ENODEV);
  for (const int error : {EMFILE, EACCES, ENOMEM}) {
    sys::FailNthCall(1, error);
    EXPECT_EQ(AskForAppArmor(), error);
    const Feature layer = AppArmorLayer(error);
    EXPECT_EQ(layer.detail, std::string("it could not be asked for: ") + strerror(error));
    EXPECT_FALSE(CheckAppArmor(layer, AppArmorUse::kRequire).ok());
  }
  sys::FailNthCall(0, 0);
}

TEST(Isolation, AppArmorThatIsRequiredAndNotThereLetsNothingStart) {
  const Feature lacks = AppArmorLayer(ENODEV);
  EXPECT_TRUE(CheckAppArmor(WithUse(lacks, AppArmorUse::kAuto), AppArmorUse::kAuto).ok());
  EXPECT_TRUE(CheckAppArmor(AppArmorLayer(0), AppArmorUse::kRequire).ok());
  const Feature required = WithUse(AppArmorLayer(ENOENT), AppArmorUse::kRequire);
  EXPECT_THAT(required.detail, HasSubstr("no function starts"));
  const Status refused = CheckAppArmor(required, AppArmorUse::kRequire);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("apparmor: profile pulga-function is not loaded"));
  EXPECT_THAT(refused.error().message, HasSubstr("apparmor_parser -r"));
}

TEST(Isolation, AppArmorThatIsSwitchedOffSaysSo) {
  std::vector<Feature> features = {{"seccomp", kPresent, "", ""}, AppArmorLayer(0)};
  ShowUse(AppArmorUse::kOff, features);
  EXPECT_EQ(features[0].state, kPresent);
  EXPECT_EQ(features[1].state, kAbsent);
  EXPECT_THAT(features[1].detail, HasSubstr("--apparmor off"));
  EXPECT_TRUE(CheckAppArmor(features[1], AppArmorUse::kOff).ok());
}

TEST(Isolation, LayersOfAVersionComeBackBesideItsWarnings) {
  const std::string sent =
      WithLayers("one\ntwo", EncodeLayers({{"landlock", kPresent, "ABI 7", "left out"},
                                           {"apparmor", kAbsent, "not loaded", ""}}));
  const SplitReport back = SplitLayers(sent);
  EXPECT_THAT(back.warnings, ElementsAre("one", "two"));
  ASSERT_THAT(back.layers, SizeIs(2));
  EXPECT_EQ(back.layers[1].state, kAbsent);
  EXPECT_EQ(back.layers[1].detail, "not loaded");
  EXPECT_THAT(SplitLayers(WithLayers("", "seccomp\tpresent\t\n")).layers, SizeIs(1));
}

// What a spawner writes is a stranger's word: no warning of the launcher's, nothing unprintable.
TEST(Isolation, ASpawnerCanSayNothingButLayers) {
  EXPECT_THAT(SplitLayers(WithLayers("", "a warning\nseccomp\tperfect\tx\n")).warnings, IsEmpty());
  EXPECT_THAT(DecodeLayers("seccomp\tperfect\tx\nnot a layer\nBad Name\tpresent\tx\n"), IsEmpty());
  const auto odd = DecodeLayers("seccomp\tpresent\t\x1b[2J" + std::string(4000, 'x'));
  ASSERT_THAT(odd, SizeIs(1));
  EXPECT_EQ(odd[0].detail.find('\x1b'), std::string::npos);
  EXPECT_LE(odd[0].detail.size(), 220U);
  std::string many;
  for (int i = 0; i < 100; ++i) {
    many +=
        "layer_" + std::string(1, 'a' + i % 26) + std::string(1, 'a' + i / 26) + "\tpresent\t\n";
  }
  EXPECT_THAT(DecodeLayers(many), SizeIs(48));
}

// Root's lines stand above a spawner's.
TEST(Isolation, OfALayerTheFirstWordHolds) {
  const std::string root = EncodeLayers({{"network", kDegraded, "by grant: the host's", ""}});
  const std::string text = WithLayers(WithLayers("", root), "network\tpresent\t\n");
  const auto layers = SplitLayers(text).layers;
  ASSERT_THAT(layers, SizeIs(1));
  EXPECT_EQ(layers[0].state, kDegraded);
}

TEST(Isolation, CapabilitiesInTheBoundingSetDegradeTheirLayerAndAreNamed) {
  constexpr uint64_t kSetUid = 1 << 7;
  EXPECT_EQ(CapabilityLayer(0, 0).state, kPresent);
  const Feature granted = CapabilityLayer(kSetUid, kSetUid);
  EXPECT_EQ(granted.state, kDegraded);
  EXPECT_EQ(granted.detail, "SETUID in the bounding set");
  const Feature broken = CapabilityLayer(kSetUid | 1, kSetUid);
  EXPECT_EQ(broken.state, kAbsent);
  EXPECT_THAT(broken.detail, HasSubstr("more in the bounding set than was granted"));
}

// What a version lives on stands by the line that the file has now.
TEST(Isolation, FollowsTheGrantsInForce) {
  Wishes wishes{"openfaas-fn/a", {}};
  wishes.access.capabilities = 1 << 7;
  const std::vector<Feature> layers = {CapabilityLayer(1 << 7, 1 << 7),
                                       {"network", kPresent, "loopback alone", ""}};
  for (const size_t line : {2U, 5U}) {
    const Grants grants = GrantsOf({{line, "capability SETUID functions=openfaas-fn/a"}});
    const auto now = WithGrants(layers, FindGrantsUsed(wishes, grants));
    EXPECT_EQ(
        Layer(now, "capabilities").detail,
        "SETUID in the bounding set; by grant: SETUID (grants.conf:" + std::to_string(line) + ")");
    EXPECT_EQ(Layer(now, "network").state, kPresent);
  }
}

TEST(Isolation, NamesTheHostIdsOfAVersion) {
  HostIds ids;
  EXPECT_EQ(IdRangeLayer(ids, 7).state, kPresent);
  EXPECT_EQ(IdRangeLayer(ids, 7).detail, "image ids are 2046820352-2046885887, the spawner's " +
                                             std::to_string(ids.SpawnerHostId(7)));
  ids.spawners = 0;
  ids.owner = {{0, 0, 1}};
  EXPECT_EQ(IdRangeLayer(ids, 7).state, kDegraded);
  EXPECT_THAT(IdRangeLayer(ids, 7).detail, HasSubstr("one id"));
}

TEST(Isolation, TellsRlimitsAsTheyAre) {
  const ResourceLimit high[] = {{"nofile", RLIMIT_NOFILE, ~uint64_t{0}}};
  EXPECT_EQ(RlimitLayer(high, 64).state, kPresent);
  EXPECT_THAT(RlimitLayer(high, 64).detail, HasSubstr("nofile 64"));
  const ResourceLimit low[] = {{"files", RLIMIT_NOFILE, 1}};
  EXPECT_EQ(RlimitLayer(low, 64).state, kDegraded) << "there is more than that";
}

TEST(Isolation, AGrantDegradesWhatStandsAndMendsNothing) {
  EXPECT_EQ(OpenedBy("", {"network", kPresent, "", ""}).state, kPresent);
  EXPECT_EQ(OpenedBy("the host's", {"network", kPresent, "", ""}).detail, "by grant: the host's");
  const Feature absent = OpenedBy("/dev/x", {"cgroup.devices", kAbsent, "not in this kernel", ""});
  EXPECT_EQ(absent.state, kAbsent);
  EXPECT_EQ(absent.detail, "not in this kernel");
}

std::vector<Feature> ReportOf(const std::string& ids, size_t rows = 8) {
  std::vector<Feature> report = {{"id_range", kPresent, ids, ""}};
  while (report.size() < rows) {
    report.push_back({"layer." + std::to_string(report.size()), kPresent, "as everywhere", ""});
  }
  return report;
}

TEST(FeatureShelf, KeepsWhatManyListsSayOnceAndForgetsWhatNoneSays) {
  FeatureShelf shelf;
  FeatureShelf::List first = shelf.Keep(ReportOf("1-2"));
  FeatureShelf::List second = shelf.Keep(ReportOf("3-4"));
  EXPECT_EQ(first.shared, second.shared) << "one and the same";
  EXPECT_EQ(second.own.size(), 1U);
  EXPECT_EQ(Unpacked(first)[0].detail, "1-2");
  EXPECT_EQ(Unpacked(second)[0].detail, "3-4");
  EXPECT_EQ(Unpacked(second)[7].detail, "as everywhere");
  const std::weak_ptr<const std::vector<Feature>> gone = first.shared;
  first = {};
  EXPECT_FALSE(gone.expired());
  second = {};
  EXPECT_TRUE(gone.expired());
  EXPECT_TRUE(Unpacked(shelf.Keep({})).empty());
}

TEST(FeatureShelf, AListThatIsLikeNoOtherIsItsOwn) {
  FeatureShelf shelf;
  std::vector<FeatureShelf::List> lists;
  for (size_t rows = 4; rows < 40; ++rows) lists.push_back(shelf.Keep(ReportOf("1-2", rows)));
  for (size_t i = 0; i < lists.size(); ++i) {
    EXPECT_TRUE(lists[i].own.empty());
    EXPECT_EQ(Unpacked(lists[i]).size(), i + 4);
  }
  EXPECT_LE(shelf.size(), 16U) << "the search for a like one is bounded";
  std::vector<Feature> other = ReportOf("1-2", 39);
  for (size_t i = 0; i < 20; ++i) other[i].detail = "nowhere else";
  const FeatureShelf::List apart = shelf.Keep(other);
  EXPECT_TRUE(apart.own.empty());
  EXPECT_EQ(Unpacked(apart)[19].detail, "nowhere else");
}

}  // namespace
}  // namespace pulga
