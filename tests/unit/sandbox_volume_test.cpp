// Volumes, the parts without a kernel: names on the wire, what a superblock says.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "sandbox/access_wire.h"
#include "sandbox/id_ranges.h"
#include "sandbox/kernel_features.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/volumes/ext4_super.h"
#include "sandbox/volumes/version_volumes.h"
#include "sandbox/volumes/volume_host.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {
namespace {

struct Field {
  size_t at;
  uint32_t value;
  size_t size;
};

std::string Super(const std::vector<Field>& fields) {
  std::string bytes(kExt4SuperBytes, '\0');
  for (const Field& field : fields) memcpy(bytes.data() + field.at, &field.value, field.size);
  return bytes;
}

TEST(OwnedMount, MapsTheOwnerAndParksAllOthers) {
  const IdMapTexts maps = MapsOfOwner({{1000, 0}, {kOwnerIdBase + 5, kOwnerIdBase + 6}});
  EXPECT_EQ(maps.uids, "0 2147483648 1000\n1000 2046820357 1\n1001 2147484649 2030042135\n");
  EXPECT_EQ(maps.gids, "0 2046820358 1\n1 2147483649 2030043135\n");
  const IdMapTexts last = MapsOfOwner({{kHostIdLimit - 1, 1}, {kOwnerIdBase, kOwnerIdBase}});
  EXPECT_EQ(last.uids, "0 2147483648 2030043135\n2030043135 2046820352 1\n");
}

const Field kMagic = {0x38, 0xef53, 2};

TEST(Ext4Super, TellsSizesAndState) {
  const auto super = ParseExt4Super(Super({kMagic,
                                           {0x04, 1010, 4},
                                           {0x248, 10, 4},
                                           {0x0c, 250, 4},
                                           {0x18, 2, 4},
                                           {0x3a, 1, 2},
                                           {0x5c, 4, 4}}));
  ASSERT_TRUE(super.has_value());
  EXPECT_EQ(super->total_bytes, 4096000U);
  EXPECT_EQ(super->free_bytes, 1024000U);
  EXPECT_TRUE(super->clean);
  EXPECT_TRUE(super->has_journal);
  EXPECT_FALSE(super->has_errors);
}

TEST(Ext4Super, KnowsDamageAndTheHighHalvesOfWideOnes) {
  const auto super =
      ParseExt4Super(Super({kMagic, {0x04, 1, 4}, {0x150, 1, 4}, {0x60, 0x80, 4}, {0x3a, 2, 2}}));
  ASSERT_TRUE(super.has_value());
  EXPECT_EQ(super->total_bytes, ((uint64_t{1} << 32) + 1) * 1024);
  EXPECT_TRUE(super->has_errors);
  EXPECT_FALSE(super->clean);
  EXPECT_FALSE(super->has_journal);
}

TEST(Ext4Super, IsNothingElse) {
  EXPECT_FALSE(ParseExt4Super("").has_value());
  EXPECT_FALSE(ParseExt4Super(std::string(kExt4SuperBytes, '\0')).has_value());
  EXPECT_FALSE(ParseExt4Super(Super({kMagic}).substr(1)).has_value());
  EXPECT_FALSE(ParseExt4Super(Super({kMagic, {0x18, 60, 4}})).has_value());
}

TEST(VolumeNames, GoBothWays) {
  EXPECT_EQ(VolumeSource(0xff), "00000000000000ff");
  EXPECT_EQ(VolumeFileName(0xff), "00000000000000ff.ext4");
  EXPECT_EQ(VolumeIdOf(VolumeSource(UINT64_MAX)), UINT64_MAX);
  for (const char* other : {"", "data", "00000000000000FF", "0000000000000000", "ff",
                            "00000000000000ff.ext4", "../../../../../../"}) {
    EXPECT_EQ(VolumeIdOf(other), 0U) << other;
  }
}

TEST(ResolvedVolumes, ComeOverTheWireAsTheyWere) {
  AccessSpec access;
  VolumeMount set{VolumeKind::kDataSet, VolumeSource(7), "/models", true, 0, {}};
  set.layers.resize(3);
  set.layers[1].bytes.fill(0x55);
  access.volumes = {{VolumeKind::kVolume, VolumeSource(9), "/data", false, 0, {}}, set};
  WireWriter writer;
  PutAccess(writer, access);
  const auto bytes = writer.bytes();
  WireReader reader({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  const auto taken = TakeAccess(reader);
  ASSERT_TRUE(taken.ok());
  EXPECT_TRUE(reader.finished());
  EXPECT_EQ(*taken, access);
}

TEST(ResolvedVolumes, HaveAnIdAndLayersByTheirKind) {
  const VolumeMount own{VolumeKind::kVolume, VolumeSource(9), "/data", false, 0, {}};
  EXPECT_TRUE(CheckResolved({own}).ok());
  VolumeMount named = own;
  named.source = "data";
  EXPECT_FALSE(CheckResolved({named}).ok());
  VolumeMount layered = own;
  layered.layers.resize(1);
  EXPECT_FALSE(CheckResolved({layered}).ok());
  layered.kind = VolumeKind::kDataSet;
  EXPECT_TRUE(CheckResolved({layered}).ok());
  layered.layers.clear();
  EXPECT_FALSE(CheckResolved({layered}).ok());
}

TEST(VolumePaths, AreNotInsideOneAnotherNorWhereInstancesMount) {
  const auto check = [](const std::vector<std::string>& paths) {
    AccessSpec access;
    for (const std::string& path : paths) {
      access.volumes.push_back({VolumeKind::kVolume, "data", path, false, 0, {}});
    }
    const Status checked = CheckAccess(access);
    return checked.ok() ? "" : checked.error().message;
  };
  EXPECT_EQ(check({"/data", "/data2", "/srv/data"}), "");
  EXPECT_EQ(check({"/data/inner", "/data"}),
            "volumes[0].path: \"/data/inner\" is inside another volume, \"/data\"");
  EXPECT_EQ(check({"/tmp/cache"}), "volumes[0].path: \"/tmp/cache\" is the sandbox's own");
  EXPECT_EQ(check({"/run"}), "volumes[0].path: \"/run\" is the sandbox's own");
}

TEST(VolumeIo, CountsForTheReaderFromLinux514On) {
  for (const char* release : {"5.14", "5.14.0-rc1", "6.1.0-56-amd64", "10.0-custom"}) {
    EXPECT_TRUE(LoopChargesReaders(release)) << release;
  }
  for (const char* release : {"5.13.19", "4.19.0", "5.9-rt", "5", "", "six.one"}) {
    EXPECT_FALSE(LoopChargesReaders(release)) << release;
  }
}

}  // namespace
}  // namespace pulga
