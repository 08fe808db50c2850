// Numbers and names of tar headers: what is none is refused and never taken for another one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <clocale>

#include "images/byte_source.h"
#include "images/tar_reader.h"
#include "tests/support/archive_builder.h"
#include "tests/support/text_source.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using testing::TarBuilder;
using testing::TarItem;
using testing::TextSource;

TarItem Five() {
  setlocale(LC_CTYPE, "C.UTF-8");
  TarItem item;
  item.name = "five";
  item.content = "12345";
  return item;
}

// The first entry of a tar, or why there is none.
Result<TarEntry> FirstOf(const std::string& tar) {
  TextSource bytes(tar);
  PULGA_ASSIGN_OR_RETURN(const auto reader, TarReader::Open(bytes));
  PULGA_ASSIGN_OR_RETURN(const TarEntry* entry, reader->Next());
  if (entry == nullptr) return Error{Code::kNotFound, 0, "no entry"};
  return *entry;
}

Result<TarEntry> WithPax(const std::string& key, const std::string& value) {
  TarItem item = Five();
  item.pax = {{key, value}};
  return FirstOf(TarBuilder().Add(item).Finish());
}

Result<TarEntry> WithField(size_t at, const std::string& bytes) {
  TarItem item = Five();
  item.raw = {{at, bytes}};
  return FirstOf(TarBuilder().Add(item).Finish());
}

void ExpectRefused(const Result<TarEntry>& entry, const std::string& what) {
  ASSERT_FALSE(entry.ok()) << what;
  EXPECT_EQ(entry.error().code, Code::kInvalidArgument) << what;
  EXPECT_THAT(entry.error().message, HasSubstr("damaged tar")) << what;
}

TEST(TarHeaders, TakeNumbersOfPaxRecordsAsTheyAre) {
  EXPECT_EQ(WithPax("uid", "1234").value().uid, 1234);
  EXPECT_EQ(WithPax("gid", "4294967295").value().gid, 4294967295);
  EXPECT_EQ(WithPax("size", "5").value().size, 5u);
  EXPECT_EQ(WithPax("mtime", "1700000000.25").value().mtime.tv_nsec, 250'000'000);
  EXPECT_EQ(WithPax("mtime", "-1").value().mtime.tv_sec, -1);
}

TEST(TarHeaders, RefuseWhatIsNoNumberInAPaxRecord) {
  for (const char* key : {"uid", "gid", "size", "GNU.sparse.realsize", "GNU.sparse.major"}) {
    for (const char* value : {"abc", "1e9", "-1", "+1", " 1", "1 ", "0x10", "1.5", "",
                              "9223372036854775808", "18446744073709551616"}) {
      ExpectRefused(WithPax(key, value), std::string(key) + "=" + value);
    }
  }
  for (const char* key : {"mtime", "atime", "ctime"}) {
    for (const char* value : {"nan", "", ".5", "1e9", "--1", "1.2.3", "99999999999999999999"}) {
      ExpectRefused(WithPax(key, value), std::string(key) + "=" + value);
    }
  }
  ExpectRefused(WithPax("GNU.sparse.map", "0,1,x,2"), "a map");
}

TEST(TarHeaders, RefuseIdsNoKernelHas) {
  ExpectRefused(WithPax("uid", "4294967296"), "uid");
  ExpectRefused(WithPax("gid", "18446744073709551615"), "gid");
  TarItem item = Five();
  item.uid = uint64_t{1} << 32;
  ExpectRefused(FirstOf(TarBuilder().Add(item).Finish()), "base-256");
}

TEST(TarHeaders, RefuseNulsInNames) {
  using std::string_literals::operator""s;
  for (const char* key : {"path", "linkpath", "uname", "GNU.sparse.name"}) {
    ExpectRefused(WithPax(key, "a\0b"s), key);
  }
  ExpectRefused(WithPax("SCHILY.xattr.user.a\0b"s, "v"), "an attribute");
  EXPECT_TRUE(WithPax("SCHILY.xattr.user.a", "v\0w"s).ok()) << "a value may be any bytes";
}

TEST(TarHeaders, RefuseDamagedPaxRecords) {
  for (const char* records : {"12 uid=1\n", "0 uid=1\n", "8 uid=1x", "uid=1\n", "8 uid+1\n",
                              "99999999999999999999 uid=1\n", " 8 uid=1\n", "5 =1\n"}) {
    TarItem header;
    header.name = "pax";
    header.type = 'x';
    header.content = records;
    ExpectRefused(FirstOf(TarBuilder().Add(header).Add(Five()).Finish()), records);
  }
}

TEST(TarHeaders, TakeOctalAndBase256) {
  using std::string_literals::operator""s;
  EXPECT_EQ(WithField(108, "  1750 \0"s).value().uid, 1000);
  EXPECT_EQ(WithField(108, std::string(8, '\0')).value().uid, 0);
  EXPECT_EQ(WithField(108, "\x80\0\0\0\0\1\0\0"s).value().uid, 65536);
  EXPECT_EQ(WithField(124, "000000000005"s).value().size, 5u) << "no end but the field's";
  EXPECT_EQ(WithField(136, std::string(12, '\xff')).value().mtime.tv_sec, -1) << "before 1970";
}

TEST(TarHeaders, RefuseFieldsThatAreNoNumbers) {
  using std::string_literals::operator""s;
  for (const size_t at : {108, 116, 124}) {
    for (const std::string& field : {"garbage\0"s, "-000001\0"s, "\0"s + "000005\0"s,
                                     "0x10\0\0\0\0"s, "8\0"s, std::string(8, '\xff')}) {
      ExpectRefused(WithField(at, field), std::to_string(at) + ": " + field);
    }
  }
  ExpectRefused(WithField(124, "\x80\0\0\0\x80\0\0\0\0\0\0\0"s), "2^63");
  ExpectRefused(WithField(124, "\x81\0\0\0\0\0\0\0\0\0\0\5"s), "2^88");
  ExpectRefused(WithField(136, "yesterday\0"s), "a time");
  ExpectRefused(WithField(100, "rwxr-xr\0"s), "a mode");
}

// The header would be taken for empty, and its content for the next header.
TEST(TarHeaders, ReadExtensionsWhoseSizeIsBase256) {
  using std::string_literals::operator""s;
  TarItem header;
  header.name = "pax";
  header.type = 'x';
  header.content = "11 uid=abc\n";
  header.raw = {{124, "\x80\0\0\0\0\0\0\0\0\0\0\x0b"s}};
  ExpectRefused(FirstOf(TarBuilder().Add(header).Add(Five()).Finish()), "hidden");
}

}  // namespace
}  // namespace pulga
