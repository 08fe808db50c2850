// The lines of grants.conf.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "sandbox/grants_file.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(GrantsFile, IsReadAsDocumented) {
  const GrantsText text = ParseGrants(
      "# a board with lamps\n"
      "\n"
      "device gpio /dev/gpiochip0 functions=blink,other/led lease=shared  # the lamps\n"
      "\tcapability\tNET_BIND_SERVICE   functions=*\n"
      "host-directory /srv/models read-only functions=blink\n"
      "host-directory /srv/out read-write functions=*\n"
      "network host functions=blink\n"
      "device cam /dev/video0 functions=*");
  EXPECT_THAT(text.problems, IsEmpty());
  EXPECT_EQ(text.lines.size(), 6U);
  EXPECT_EQ(text.lines[0].text,
            "device gpio /dev/gpiochip0 functions=blink,other/led lease=shared");
  EXPECT_EQ(text.lines[0].number, 3U);
  const Grants& grants = text.grants;
  EXPECT_EQ(grants.host_networks.at(0).to.line, 7U);
  ASSERT_EQ(grants.devices.size(), 2U);
  EXPECT_EQ(grants.devices[0].name, "gpio");
  EXPECT_EQ(grants.devices[0].path, "/dev/gpiochip0");
  EXPECT_EQ(grants.devices[0].lease, LeaseKind::kShared);
  EXPECT_THAT(grants.devices[0].to.functions, ElementsAre("openfaas-fn/blink", "other/led"));
  EXPECT_EQ(grants.devices[1].lease, LeaseKind::kExclusive);
  EXPECT_TRUE(grants.capabilities.at(0).to.everyone);
  EXPECT_EQ(grants.capabilities.at(0).capability, 10U);
  EXPECT_EQ(grants.host_directories.at(0).use, HostDirectoryUse::kReadOnly);
  EXPECT_EQ(grants.host_directories.at(1).use, HostDirectoryUse::kReadWrite);
  EXPECT_EQ(grants.host_networks.size(), 1U);
}

TEST(GrantsFile, NamesWhomAFunctionIsInAHostDirectory) {
  const GrantsText text = ParseGrants(
      "host-directory /a read-write owner=1000 functions=*\n"
      "host-directory /b read-write functions=* owner=1000:33\n"
      "host-directory /c read-only owner=0 functions=*\n"
      "host-directory /d read-only functions=*\n");
  EXPECT_THAT(text.problems, IsEmpty());
  ASSERT_EQ(text.grants.host_directories.size(), 4U);
  EXPECT_EQ(text.grants.host_directories[0].owner, (HostOwner{1000, 1000}));
  EXPECT_EQ(text.grants.host_directories[1].owner, (HostOwner{1000, 33}));
  EXPECT_EQ(text.grants.host_directories[2].owner, (HostOwner{0, 0}));
  EXPECT_EQ(text.grants.host_directories[3].owner, std::nullopt);
}

TEST(GrantsFile, TakesEveryLineOfTheSampleOnceItsMarkIsAway) {
  std::ifstream in(std::string(PULGA_SOURCE_DIR) + "/docs/grants.conf");
  std::string sample, line;
  size_t lines = 0;
  while (std::getline(in, line)) {
    const bool grant = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    lines += grant ? 1 : 0;
    sample += (grant ? line.substr(1) : line) + "\n";
  }
  const GrantsText text = ParseGrants(sample);
  EXPECT_THAT(text.problems, IsEmpty());
  EXPECT_EQ(text.lines.size(), lines);
  EXPECT_GE(lines, 8U);
}

TEST(GrantsFile, SaysOfEachBadLineWhatIsWrongAndTheOthersHold) {
  const std::pair<const char*, const char*> cases[] = {
      {"allow everything", "\"allow\" is not one of"},
      {"functions=*", "\"\" is not one of"},
      {"capability CHOWN", "for whom?"},
      {"capability CHOWN functions=", "\"\" is no function"},
      {"capability CHOWN functions=a,", "\"\" is no function"},
      {"capability CHOWN functions=*,a", "\"*\" is no function"},
      {"capability CHOWN functions=ns/*", "\"ns/*\" is no function"},
      {"capability CHOWN functions=a/b/c", "is no function"},
      {"capability CHOWN functions=../a", "is no function"},
      {"capability CHOWN functions=A", "is no function"},
      {"capability CHOWN functions=a functions=b", "\"functions\" is given twice"},
      {"capability CHOWN for=a", "\"for\" is no option"},
      {"capability CHOWN functions=a lease=shared", "only devices are leased"},
      {"capability SYS_ADMIN functions=*", "\"SYS_ADMIN\" is not one of CHOWN,"},
      {"capability functions=*", "write: capability NAME functions=..."},
      {"capability CHOWN KILL functions=*", "write: capability NAME"},
      {"network egress functions=*", "\"egress\" is no network"},
      {"network functions=*", "write: network host"},
      {"host-directory /srv functions=*", "write: host-directory PATH read-only|read-write"},
      {"host-directory / read-only functions=*", "is no absolute path"},
      {"host-directory srv read-only functions=*", "is no absolute path"},
      {"host-directory /srv/../etc read-only functions=*", "is no absolute path"},
      {"host-directory /srv rw functions=*", "neither read-only nor read-write"},
      {"host-directory /srv read-only owner=alice functions=*", "\"alice\" is no number"},
      {"host-directory /srv read-only owner= functions=*", "\"\" is no number"},
      {"host-directory /srv read-only owner=1000: functions=*", "\"\" is no number"},
      {"host-directory /srv read-only owner=1:2:3 functions=*", "\"2:3\" is no number"},
      {"host-directory /srv read-only owner=-1 functions=*", "\"-1\" is no number"},
      {"host-directory /srv read-only owner=4294967295 functions=*", "are Pulga's own"},
      {"host-directory /srv read-only owner=1000:2046820352 functions=*", "are Pulga's own"},
      {"host-directory /srv read-only owner=4294967296 functions=*", "are Pulga's own"},
      {"host-directory /srv read-write owner=0 functions=*", "no function writes as root"},
      {"host-directory /srv read-write owner=0:5 functions=*", "no function writes as root"},
      {"host-directory /srv read-write owner=5:0 functions=*", "no function writes as root"},
      {"host-directory /srv read-write owner=1 owner=2 functions=*", "\"owner\" is given twice"},
      {"capability CHOWN functions=a owner=1000", "only host directories have owners"},
      {"device gpio functions=*", "write: device NAME /dev/PATH"},
      {"device gpio /dev/../x functions=*", "no path below /dev"},
      {"device gpio /etc/passwd functions=*", "no path below /dev"},
      {"device GPIO /dev/x functions=*", "no name of a grant"},
      {"device /dev/x gpio functions=*", "no name of a grant"},
      {"device gpio /dev/x functions=* lease=mine", "\"mine\" is no lease"},
      {"device gpio /dev/x functions=*\r", "control or non-ASCII"},
      {"device gpio /dev/\xc3\xbc functions=*", "control or non-ASCII"},
  };
  for (const auto& [line, why] : cases) {
    const GrantsText text = ParseGrants("capability KILL functions=a\n" + std::string(line) +
                                        "\nnetwork host functions=a");
    ASSERT_EQ(text.problems.size(), 1U) << line;
    EXPECT_EQ(text.problems[0].line, 2U);
    EXPECT_THAT(text.problems[0].message, HasSubstr(why)) << line;
    EXPECT_EQ(text.lines.size(), 2U);
    EXPECT_EQ(text.grants.capabilities.size(), 1U);
    EXPECT_EQ(text.grants.host_networks.size(), 1U);
    EXPECT_TRUE(text.grants.devices.empty() && text.grants.host_directories.empty());
  }
  EXPECT_EQ(ParseGrants("capability KILL functions=" + std::string(5000, 'a')).problems.size(), 1U);
  EXPECT_EQ(ParseGrants(std::string("network host functions=a\0", 25)).problems.size(), 1U);
}

// Whatever is cut or changed in a good file, nothing is granted that no line says.
TEST(GrantsFile, GrantsNoMoreWhenItIsDamaged) {
  const std::string good =
      "device gpio /dev/gpiochip0 functions=blink\nnetwork host functions=blink\n"
      "capability CHOWN functions=blink\nhost-directory /srv/x read-only functions=blink\n";
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    std::string text = good.substr(0, random() % (good.size() + 1));
    for (unsigned n = random() % 4; n > 0 && !text.empty(); --n) {
      text[random() % text.size()] = static_cast<char>(random());
    }
    const Grants grants = ParseGrants(text).grants;
    for (const DeviceGrant& grant : grants.devices) EXPECT_TRUE(grant.path.starts_with("/dev/"));
    for (const CapabilityGrant& grant : grants.capabilities) EXPECT_LE(grant.capability, 10U);
    for (const HostDirectoryGrant& grant : grants.host_directories) {
      EXPECT_TRUE(IsCleanPath(grant.path)) << grant.path;
    }
  }
}

}  // namespace
}  // namespace pulga
