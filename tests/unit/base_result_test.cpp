#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

#include "base/result.h"

namespace pulga {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return Error{Code::kInvalidArgument, 0, std::to_string(n) + " is odd"};
  return n / 2;
}

Result<int> Quarter(int n) {
  PULGA_ASSIGN_OR_RETURN(const int half, Half(n));
  return Half(half);
}

Status CheckEven(int n) {
  PULGA_RETURN_IF_ERROR(Status(Half(n)));
  return OkStatus();
}

TEST(Result, HoldsAValueOrAnError) {
  EXPECT_EQ(*Half(4), 2);
  EXPECT_FALSE(Half(3).ok());
  EXPECT_EQ(Half(3).error().message, "3 is odd");
}

TEST(Result, AssignOrReturnPassesTheErrorOn) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().message, "3 is odd");
}

TEST(Result, MovesAMoveOnlyValueOut) {
  Result<std::unique_ptr<int>> r(std::make_unique<int>(7));
  const std::unique_ptr<int> taken = *std::move(r);
  EXPECT_EQ(*taken, 7);
}

TEST(Result, ReadingTheValueOfAnErrorIsOurBug) {
  EXPECT_DEATH((void)Half(3).value(), "check failed");
}

TEST(Status, IsOkUnlessGivenAnError) {
  EXPECT_TRUE(CheckEven(2).ok());
  EXPECT_EQ(CheckEven(5).error().code, Code::kInvalidArgument);
}

TEST(Error, NamesTheStepAndTheErrno) {
  const Error error = ErrnoError("open /x", ENOENT);
  EXPECT_EQ(error.message, "open /x: No such file or directory");
  EXPECT_EQ(error.sys_errno, ENOENT);
  EXPECT_EQ(error.code, Code::kNotFound);
}

TEST(Error, EveryErrnoHasACodeAndDiskFullIsNoSpace) {
  EXPECT_EQ(ErrnoError("w", ENOSPC).code, Code::kNoSpace);
  EXPECT_EQ(ErrnoError("w", EPERM).code, Code::kPermission);
  EXPECT_EQ(ErrnoError("w", EEXIST).code, Code::kAlreadyExists);
  EXPECT_EQ(ErrnoError("w", EIO).code, Code::kIo);
}

TEST(Error, PrefixKeepsCodeAndErrno) {
  const Error error = Prefix("layer 2/5", ErrnoError("write bin/sh", ENOSPC));
  EXPECT_EQ(error.message, "layer 2/5: write bin/sh: No space left on device");
  EXPECT_EQ(error.code, Code::kNoSpace);
  EXPECT_EQ(error.sys_errno, ENOSPC);
}

TEST(Error, CodesHaveStableNames) {
  EXPECT_EQ(CodeName(Code::kInvalidArgument), "invalid_argument");
  EXPECT_EQ(CodeName(Code::kNoSpace), "no_space");
  EXPECT_EQ(CodeName(Code::kInternal), "internal");
}

}  // namespace
}  // namespace pulga
