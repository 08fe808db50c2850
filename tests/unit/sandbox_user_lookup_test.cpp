#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/user_lookup.h"
#include "tests/support/test_gate.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const UserDatabase kDatabase = {
    "root:x:0:0:root:/root:/bin/sh\n"
    "app:x:1000:1001:The App:/srv/app:/bin/sh\n"
    "big:x:70000:70000::/:/bin/sh\n"
    "3proxy:x:77:78::/run:/bin/false\n",
    "root:x:0:\nstaff:x:50:other,app\nwheel:x:10:app\nvast:x:99999:app\n", "", ""};

std::string Resolve(std::string_view spec) {
  const auto user = ResolveUser(spec, kDatabase);
  if (!user.ok()) return user.error().message;
  return std::to_string(user->uid) + ":" + std::to_string(user->gid);
}

TEST(UserLookup, NothingMeansRoot) { EXPECT_EQ(Resolve(""), "0:0"); }

TEST(UserLookup, NamesAreLookedUpInTheImage) {
  EXPECT_EQ(Resolve("app"), "1000:1001");
  EXPECT_EQ(Resolve("app:staff"), "1000:50");
  EXPECT_EQ(Resolve("5:staff"), "5:50");
  EXPECT_EQ(Resolve("app:7"), "1000:7");
  EXPECT_EQ(Resolve("3proxy"), "77:78");
}

TEST(UserLookup, ListedIdsBringTheirGroupUnlistedOnesGroupZero) {
  EXPECT_EQ(Resolve("1000"), "1000:1001");
  EXPECT_EQ(Resolve("4321"), "4321:0");
  EXPECT_EQ(Resolve("4321:7"), "4321:7");
  EXPECT_EQ(Resolve("65534"), "65534:0");
}

TEST(UserLookup, SupplementaryGroupsApplyOnlyWithoutAGroup) {
  EXPECT_THAT(ResolveUser("app", kDatabase)->groups, ElementsAre(50, 10));
  EXPECT_THAT(ResolveUser("1000", kDatabase)->groups, ElementsAre(50, 10));
  EXPECT_THAT(ResolveUser("app:7", kDatabase)->groups, IsEmpty());
  EXPECT_THAT(ResolveUser("4321", kDatabase)->groups, IsEmpty());
}

TEST(UserLookup, HomeComesFromPasswd) {
  EXPECT_EQ(ResolveUser("app", kDatabase)->home, "/srv/app");
  EXPECT_EQ(ResolveUser("", kDatabase)->home, "/root");
  EXPECT_EQ(ResolveUser("4321", kDatabase)->home, "/");
}

TEST(UserLookup, NeverBecomesRootByAccident) {
  for (const char* spec : {"4294967295",
                           "4294967296",
                           "2147483648",
                           "-1",
                           "0x0",
                           "+0",
                           "00",
                           " 0",
                           "0 ",
                           "1:-1",
                           "99999999999999999999",
                           "65535",
                           "65536",
                           "1:65536",
                           "1:0x1",
                           "0:00",
                           ":",
                           ":0",
                           "0:",
                           "app:",
                           ":staff",
                           "app:staff:1",
                           "a\nb",
                           "018446744073709551616"}) {
    const auto user = ResolveUser(spec, kDatabase);
    ASSERT_FALSE(user.ok()) << spec;
    EXPECT_EQ(user.error().code, Code::kInvalidArgument);
  }
}

TEST(UserLookup, MessagesSayWhatIsWrong) {
  EXPECT_THAT(Resolve("4294967295"), HasSubstr("is not an id from 0 to 65534"));
  EXPECT_THAT(Resolve("nobody"), HasSubstr("\"nobody\" is not in the image's /etc/passwd"));
  EXPECT_THAT(Resolve("app:none"), HasSubstr("is not in the image's /etc/group"));
}

TEST(UserLookup, EntriesWithIdsOutOfRangeDoNotCount) {
  EXPECT_FALSE(ResolveUser("big", kDatabase).ok());
}

TEST(UserLookup, HostileTablesAreJustTables) {
  UserDatabase junk = kDatabase;
  junk.passwd = std::string("\0\xff::::::::\n:::\n::0:0:::\napp:x:0x0:0::/:\napp:x:-1:0::/:\n", 50);
  EXPECT_FALSE(ResolveUser("app", junk).ok());
  EXPECT_FALSE(ResolveUser("", UserDatabase{}).value().uid);
  std::string many;
  for (int i = 0; i < 50000; ++i)
    many += "g" + std::to_string(i) + ":x:" + std::to_string(i) + ":app\n";
  UserDatabase crowd = kDatabase;
  crowd.group = many;
  EXPECT_EQ(ResolveUser("app", crowd)->groups.size(), kMaxUserGroups);
}

class UserFiles : public ::testing::Test {
 protected:
  UserFiles() : dir_(TempDir::Create("/tmp/pulga-user-test-").value()) {
    EXPECT_TRUE(MakeDirs(dir_.path() + "/etc").ok());
    root_ = OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY).value();
  }
  UserDatabase Read() { return ReadUserDatabase(root_.get()); }
  std::string passwd() const { return dir_.path() + "/etc/passwd"; }

  TempDir dir_;
  UniqueFd root_;
};

TEST_F(UserFiles, MissingFilesAreEmptyOnes) {
  const UserDatabase database = Read();
  EXPECT_EQ(database.passwd + database.passwd_problem, "");
  EXPECT_EQ(ResolveUser("12", database)->uid, 12U);
}

TEST_F(UserFiles, AreReadFromInsideTheRoot) {
  ASSERT_TRUE(WriteFile(passwd(), kDatabase.passwd).ok());
  ASSERT_TRUE(WriteFile(dir_.path() + "/etc/group", kDatabase.group).ok());
  EXPECT_EQ(ResolveUser("app:staff", Read())->gid, 50U);
}

TEST_F(UserFiles, SymlinksResolveInsideTheRoot) {
  PULGA_NEEDS_OPENAT2();
  ASSERT_EQ(symlink("/etc/hostname", passwd().c_str()), 0);  // the host has one, the root has none
  EXPECT_EQ(Read().passwd, "");
  ASSERT_TRUE(WriteFile(dir_.path() + "/etc/hostname", "in:x:5:5::/:\n").ok());
  EXPECT_EQ(ResolveUser("in", Read())->uid, 5U);
}

TEST_F(UserFiles, FifosNeitherBlockNorCount) {
  ASSERT_EQ(mkfifo(passwd().c_str(), 0644), 0);
  const UserDatabase database = Read();
  EXPECT_EQ(database.passwd_problem, "is not a regular file");
  EXPECT_THAT(ResolveUser("app", database).error().message, HasSubstr("is not a regular file"));
  EXPECT_TRUE(ResolveUser("12:13", database).ok());
}

TEST_F(UserFiles, HugeFilesAreRefused) {
  ASSERT_TRUE(WriteFile(passwd(), "").ok());
  ASSERT_EQ(truncate(passwd().c_str(), 1LL << 30), 0);
  EXPECT_EQ(Read().passwd_problem, "is larger than 1 MiB");
}

}  // namespace
}  // namespace pulga
