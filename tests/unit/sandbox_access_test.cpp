// What versions ask for beyond their walls: its text, its way over the wire, and the grants.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "sandbox/access_spec.h"
#include "sandbox/access_wire.h"
#include "sandbox/grants.h"
#include "sandbox/network_rule.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const Status& status) { return status.ok() ? "" : status.error().message; }

TEST(NetworkRule, IsReadAndWrittenAsDocumented) {
  const std::pair<const char*, const char*> cases[] = {
      {"203.0.113.0/24:443", "203.0.113.0/24:443"},
      {"10.0.0.5", "10.0.0.5"},
      {"10.0.0.5/32", "10.0.0.5"},
      {"0.0.0.0/0", "0.0.0.0/0"},
      {"tcp:1.2.3.4:53", "1.2.3.4:53"},
      {"udp:1.2.3.4:53", "udp:1.2.3.4:53"},
      {"1.2.3.4:8000-8080", "1.2.3.4:8000-8080"},
      {"1.2.3.4:80-80", "1.2.3.4:80"},
      {"[2001:DB8::/32]:443", "[2001:db8::/32]:443"},
      {"[::1]", "[::1]"},
      {"udp:[::/0]:1-65535", "udp:[::/0]:1-65535"},
      {"Example.ORG:443", "example.org:443"},
      {"example.org", "example.org"},
      {"gateway", "gateway"},
      {"4u.example", "4u.example"},
  };
  for (const auto& [text, canonical] : cases) {
    const auto rule = ParseNetworkRule(text);
    ASSERT_TRUE(rule.ok()) << text << ": " << rule.error().message;
    EXPECT_EQ(FormatNetworkRule(*rule), canonical);
    EXPECT_EQ(ErrorOf(CheckNetworkRule(*rule)), "") << text;
    EXPECT_EQ(*ParseNetworkRule(canonical), *rule);
  }
}

TEST(NetworkRule, IsRefusedByNameOfTheEntryAndReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "neither an address nor"},
      {":443", "neither an address nor"},
      {"*.example.org", "no wildcards"},
      {"a_b", "neither"},
      {"-a", "neither"},
      {"a..b", "neither"},
      {"example.org.", "neither"},
      {"example.123", "neither"},
      {"1.2.3", "no IPv4 address"},
      {"256.1.1.1", "no IPv4 address"},
      {"01.2.3.4.5", "no IPv4 address"},
      {"1.2.3.4/33", "0 to 32 bits"},
      {"1.2.3.4/", "0 to 32 bits"},
      {"1.2.3.4/24", "write 1.2.3.0/24"},
      {"[2001:db8::1/32]", "write 2001:db8::/32"},
      {"[::/129]", "0 to 128 bits"},
      {"[::ffff:1.2.3.4]", "write the IPv4 address itself"},
      {"[::1", "not closed"},
      {"[1.2.3.4]", "no IPv6 address"},
      {"[]", "no IPv6 address"},
      {"[::1]443", "a colon and a port"},
      {"2001:db8::1", "stands in brackets"},
      {"1.2.3.4:", "a port is 1 to 65535"},
      {"1.2.3.4:0", "a port is 1 to 65535"},
      {"1.2.3.4:65536", "a port is 1 to 65535"},
      {"1.2.3.4:90-80", "a port is 1 to 65535"},
      {"1.2.3.4:80-", "a port is 1 to 65535"},
      {"1.2.3.4:+80", "a port is 1 to 65535"},
      {"icmp:1.2.3.4:1", "stands in brackets"},
      {"http://x", "a port is 1 to 65535"},
  };
  for (const auto& [text, why] : cases) {
    const auto rule = ParseNetworkRule(text);
    ASSERT_FALSE(rule.ok()) << text;
    EXPECT_THAT(rule.error().message, StartsWith("\"" + std::string(text) + "\"")) << text;
    EXPECT_THAT(rule.error().message, HasSubstr(why)) << text;
  }
  EXPECT_FALSE(ParseNetworkRule(std::string(300, 'a')).ok());
  EXPECT_FALSE(ParseNetworkRule(std::string_view("a\0b", 3)).ok());
  EXPECT_FALSE(ParseNetworkRule(std::string_view("1.2.3.4\0", 8)).ok());
}

TEST(NetworkRule, ThatIsAcceptedComesBackTheSameWhateverTheText) {
  std::mt19937 random(7);
  const std::string alphabet = "0123456789.:/[]-abcdp*";
  for (int i = 0; i < 20000; ++i) {
    std::string text = i % 2 == 0 ? "" : "10.0.0.0/8:80";
    for (unsigned n = random() % 12; n > 0; --n) {
      const size_t at = random() % (text.size() + 1);
      text.insert(at, 1, alphabet[random() % alphabet.size()]);
    }
    const auto rule = ParseNetworkRule(text);
    if (!rule.ok()) continue;
    ASSERT_EQ(ErrorOf(CheckNetworkRule(*rule)), "") << text;
    ASSERT_EQ(*ParseNetworkRule(FormatNetworkRule(*rule)), *rule) << text;
  }
}

TEST(Device, IsAPathBelowDevWithTheGrantsNameInFront) {
  EXPECT_EQ(FormatDevice(*ParseDevice("gpio:/dev/gpiochip0")), "gpio:/dev/gpiochip0");
  EXPECT_EQ(ParseDevice("/dev/snd/pcm:0")->path, "/dev/snd/pcm:0");
  for (const char* text :
       {"", "gpio", "gpio:", ":/dev/x", "/dev", "/dev/", "/etc/passwd", "/dev/../x", "GPIO:/dev/x",
        "/dev/null", "/dev/fd/3", "/dev/shm", "a:b:/dev/x"}) {
    EXPECT_FALSE(ParseDevice(text).ok()) << text;
  }
}

AccessSpec Everything() {
  AccessSpec access;
  access.network.mode = NetworkMode::kEgress;
  for (const char* rule : {"203.0.113.0/24:443", "udp:[2001:db8::/32]:53", "example.org:1-9"}) {
    access.network.allow.push_back(*ParseNetworkRule(rule));
  }
  access.volumes = {{VolumeKind::kVolume, "data", "/data", false, 64 << 20},
                    {VolumeKind::kDataSet, "models", "/models", true, 0},
                    {VolumeKind::kHost, "/srv/x", "/var/x", true, 0}};
  access.devices = {{"gpio", "/dev/gpiochip0", LeaseKind::kExclusive},
                    {"", "/dev/video0", LeaseKind::kByGrant}};
  access.capabilities = 1ULL << *CapabilityNumber("NET_BIND_SERVICE");
  return access;
}

TEST(Access, OfEveryKindIsValid) { EXPECT_EQ(ErrorOf(CheckAccess(Everything())), ""); }

TEST(Access, NamesTheFieldThatIsWrong) {
  using Change = std::function<void(AccessSpec&)>;
  const std::pair<const char*, Change> cases[] = {
      {"network.mode:", [](AccessSpec& a) { a.network.mode = static_cast<NetworkMode>(3); }},
      {"network.allow: only", [](AccessSpec& a) { a.network.mode = NetworkMode::kHost; }},
      {"network.allow: 65", [](AccessSpec& a) { a.network.allow.resize(65); }},
      {"network.allow[0]:", [](AccessSpec& a) { a.network.allow[0].prefix_bits = 8; }},
      {"network.allow[0]:", [](AccessSpec& a) { a.network.allow[0].prefix_bits = 33; }},
      {"network.allow[0]:", [](AccessSpec& a) { a.network.allow[0].name = "x"; }},
      {"network.allow[2]:", [](AccessSpec& a) { a.network.allow[2].name = "../x"; }},
      {"network.allow[2]:", [](AccessSpec& a) { a.network.allow[2].address[15] = 1; }},
      {"network.allow[1]:", [](AccessSpec& a) { a.network.allow[1].first_port = 0; }},
      {"volumes: 17", [](AccessSpec& a) { a.volumes.resize(17); }},
      {"volumes[0].name:", [](AccessSpec& a) { a.volumes[0].source = "../x"; }},
      {"volumes[1].data_set:", [](AccessSpec& a) { a.volumes[1].source = "A"; }},
      {"volumes[2].host:", [](AccessSpec& a) { a.volumes[2].source = "/srv/../etc"; }},
      {"volumes[2].host:", [](AccessSpec& a) { a.volumes[2].source = "/"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "data"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/a/"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/a//b"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/a\n"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/proc/self"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/dev"; }},
      {"volumes[0].path:", [](AccessSpec& a) { a.volumes[0].path = "/sys/fs"; }},
      {"volumes[1].path:", [](AccessSpec& a) { a.volumes[1].path = "/data"; }},
      {"volumes[1].read_only:", [](AccessSpec& a) { a.volumes[1].read_only = false; }},
      {"volumes[0].size:", [](AccessSpec& a) { a.volumes[0].size_bytes = 1; }},
      {"volumes[2].size:", [](AccessSpec& a) { a.volumes[2].size_bytes = 1 << 20; }},
      {"devices: 17", [](AccessSpec& a) { a.devices.resize(17); }},
      {"devices[0]:", [](AccessSpec& a) { a.devices[0].path = "/dev/../etc"; }},
      {"devices[1]:", [](AccessSpec& a) { a.devices[1].path = "/dev/gpiochip0"; }},
      {"devices[0]:", [](AccessSpec& a) { a.devices[0].lease = static_cast<LeaseKind>(9); }},
      {"capabilities:", [](AccessSpec& a) { a.capabilities |= 1ULL << 21; }},
      {"capabilities:", [](AccessSpec& a) { a.capabilities |= 1ULL << 63; }},
  };
  for (const auto& [field, change] : cases) {
    AccessSpec access = Everything();
    change(access);
    EXPECT_THAT(ErrorOf(CheckAccess(access)), StartsWith(field));
  }
  AccessSpec inside = Everything();
  inside.volumes[0].path = "/process";
  EXPECT_EQ(ErrorOf(CheckAccess(inside)), "");
}

TEST(AccessWire, CarriesEverythingUnchangedAndNothingThatIsCut) {
  WireWriter writer;
  PutAccess(writer, Everything());
  const std::string bytes(reinterpret_cast<const char*>(writer.bytes().data()),
                          writer.bytes().size());
  WireReader reader(bytes);
  const auto got = TakeAccess(reader);
  ASSERT_TRUE(got.ok() && reader.finished());
  EXPECT_EQ(*got, Everything());
  for (size_t size = 0; size < bytes.size(); ++size) {
    WireReader cut(std::string_view(bytes).substr(0, size));
    (void)TakeAccess(cut);
    EXPECT_FALSE(cut.ok()) << size;
  }
}

TEST(Capabilities, AreTheSevenThatStayInTheNamespace) {
  EXPECT_EQ(KnownCapabilities(),
            "CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE");
  EXPECT_EQ(CapabilityNumber("CAP_CHOWN"), 0U);
  for (const char* name : {"SYS_ADMIN", "chown", "", "CAP_", "NET_ADMIN", "MKNOD"}) {
    EXPECT_FALSE(CapabilityNumber(name)) << name;
  }
}

Wishes Asking(const std::function<void(AccessSpec&)>& ask) {
  Wishes wishes;
  wishes.function = "openfaas-fn/blink";
  ask(wishes.access);
  return wishes;
}

TEST(Grants, AreNeededForWhatReachesTheHostAndNothingElse) {
  AccessSpec harmless = Everything();
  harmless.devices.clear();
  harmless.capabilities = 0;
  harmless.volumes.pop_back();
  EXPECT_TRUE(CheckAgainstGrants(Asking([&](AccessSpec& a) { a = harmless; }), {}).ok());
  const std::pair<const char*, std::function<void(AccessSpec&)>> cases[] = {
      {"\"capability KILL functions=openfaas-fn/blink\"",
       [](AccessSpec& a) { a.capabilities = 1 << 5; }},
      {"\"network host functions=openfaas-fn/blink\"",
       [](AccessSpec& a) { a.network.mode = NetworkMode::kHost; }},
      {"\"host-directory /srv/x read-only functions=openfaas-fn/blink\"",
       [](AccessSpec& a) {
         a.volumes = {{VolumeKind::kHost, "/srv/x", "/x", true, 0}};
       }},
      {"\"device NAME /dev/video0 functions=openfaas-fn/blink\"",
       [](AccessSpec& a) {
         a.devices = {{"", "/dev/video0", LeaseKind::kByGrant}};
       }},
  };
  for (const auto& [line, ask] : cases) {
    EXPECT_THAT(ErrorOf(CheckAgainstGrants(Asking(ask), {})), HasSubstr(line));
  }
}

TEST(Grants, HoldForTheFunctionTheDirectoryAndTheLeaseTheyName) {
  const GrantedTo blink{false, {"openfaas-fn/blink"}};
  Grants grants;
  grants.capabilities = {{5, blink}};
  grants.host_directories = {{"/srv/x", HostDirectoryUse::kReadOnly, blink}};
  grants.devices = {{"gpio", "/dev/gpiochip0", LeaseKind::kExclusive, {true, {}}}};
  Wishes spec = Asking([](AccessSpec& a) {
    a.capabilities = 1 << 5;
    a.volumes = {{VolumeKind::kHost, "/srv/x/below", "/x", true, 0}};
    a.devices = {{"gpio", "/dev/gpiochip0", LeaseKind::kByGrant}};
  });
  EXPECT_EQ(ErrorOf(CheckAgainstGrants(spec, grants)), "");
  for (const char* other : {"", "openfaas-fn/blin", "other/blink", "openfaas-fn/blink2"}) {
    spec.function = other;
    EXPECT_THAT(ErrorOf(CheckAgainstGrants(spec, grants)), StartsWith("capabilities:")) << other;
  }
  const std::pair<const char*, std::function<void(AccessSpec&)>> cases[] = {
      {"capabilities:", [](AccessSpec& a) { a.capabilities |= 1; }},
      {"volumes[0].host:", [](AccessSpec& a) { a.volumes[0].source = "/srv/xy"; }},
      {"volumes[0].host:", [](AccessSpec& a) { a.volumes[0].source = "/srv"; }},
      {"volumes[0].host:", [](AccessSpec& a) { a.volumes[0].read_only = false; }},
      {"devices[0]:", [](AccessSpec& a) { a.devices[0].name = "i2c"; }},
      {"devices[0]:", [](AccessSpec& a) { a.devices[0].path = "/dev/gpiochip1"; }},
      {"devices[0]:", [](AccessSpec& a) { a.devices[0].lease = LeaseKind::kShared; }},
  };
  spec.function = "openfaas-fn/blink";
  for (const auto& [field, change] : cases) {
    Wishes changed = spec;
    change(changed.access);
    EXPECT_THAT(ErrorOf(CheckAgainstGrants(changed, grants)), StartsWith(field));
  }
}

TEST(Grants, SayWhatAVersionLivesOnAndByWhichLine) {
  const GrantedTo second{true, {}, 2};
  const GrantedTo others{false, {"openfaas-fn/led"}, 3};
  const GrantedTo fourth{false, {"openfaas-fn/blink"}, 4};
  Grants grants;
  grants.capabilities = {{5, others}, {5, second}, {7, fourth}};
  grants.host_networks = {{fourth}};
  grants.host_directories = {{"/srv", HostDirectoryUse::kReadOnly, second}};
  grants.devices = {{"gpio", "/dev/gpiochip0", LeaseKind::kExclusive, fourth}};
  const GrantsUsed none = FindGrantsUsed(Asking([](AccessSpec&) {}), grants);
  EXPECT_EQ(none.capabilities + none.network + none.devices + none.host_directories, "");
  const GrantsUsed used =
      FindGrantsUsed(Asking([](AccessSpec& a) {
                       a.capabilities = 1 << 5 | 1 << 7;
                       a.network.mode = NetworkMode::kHost;
                       a.volumes = {{VolumeKind::kHost, "/srv/x", "/x", true, 0}};
                       a.devices = {{"", "/dev/gpiochip0", LeaseKind::kByGrant}};
                     }),
                     grants);
  EXPECT_EQ(used.capabilities, "KILL (grants.conf:2), SETUID (grants.conf:4)");
  EXPECT_EQ(used.network, "the host's (grants.conf:4)");
  EXPECT_EQ(used.host_directories, "/srv/x (grants.conf:2)");
  EXPECT_EQ(used.devices, "/dev/gpiochip0 (grants.conf:4)");
}

TEST(Grants, SayAsWhomEachHostDirectoryIsUsed) {
  const GrantedTo everyone{true, {}, 1};
  const GrantedTo led{false, {"openfaas-fn/led"}, 2};
  Grants grants;
  grants.host_directories = {{"/srv/a", HostDirectoryUse::kReadOnly, everyone, HostOwner{7, 8}},
                             {"/srv/a", HostDirectoryUse::kReadWrite, everyone, HostOwner{9, 9}},
                             {"/srv/b", HostDirectoryUse::kReadOnly, led, HostOwner{7, 8}},
                             {"/srv/b", HostDirectoryUse::kReadOnly, everyone}};
  const Wishes wishes = Asking([](AccessSpec& a) {
    a.volumes = {{VolumeKind::kVolume, "/srv/a", "/1", true, 0},
                 {VolumeKind::kHost, "/srv/a/x", "/2", true, 0},
                 {VolumeKind::kHost, "/srv/a", "/3", false, 0},
                 {VolumeKind::kHost, "/srv/b", "/4", true, 0}};
  });
  EXPECT_THAT(FindHostOwners(wishes, grants),
              ElementsAre(std::nullopt, HostOwner{7, 8}, HostOwner{9, 9}, std::nullopt));
  EXPECT_EQ(FindGrantsUsed(wishes, grants).host_directories,
            "/srv/a/x as 7:8 (grants.conf:1), /srv/a as 9:9 (grants.conf:1), "
            "/srv/b (grants.conf:1)");
}

}  // namespace
}  // namespace pulga
