// Refused system calls on their way to whoever describes a function: the book, and the pools.
#include <gmock/gmock.h>

#include "runtime/refusal_book.h"
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(RefusalBook, AddsUpByName) {
  RefusalBook book;
  const TimePoint now{seconds(1000)};
  (void)book.Add({{"mount", 2}, {"ptrace", 1}}, now);
  (void)book.Add({{"mount", 3}}, now);
  EXPECT_THAT(book.counts(), ElementsAre(Pair("mount", 5), Pair("ptrace", 1)));
}

TEST(RefusalBook, IsLoggedAtOnceAndThenOnceAMinute) {
  RefusalBook book;
  const TimePoint now{seconds(1000)};
  EXPECT_EQ(book.Add({}, now), "");
  EXPECT_EQ(book.Add({{"mount", 2}}, now), "system calls refused so far: 2 (mount 2)");
  EXPECT_EQ(book.Add({{"ptrace", 1}}, now + seconds(59)), "");
  EXPECT_EQ(book.Add({}, now + seconds(61)), "") << "nothing new";
  EXPECT_EQ(book.Add({{"mount", 1}}, now + seconds(61)),
            "system calls refused so far: 4 (mount 3, ptrace 1)");
}

class RefusedCallsTest : public testing::CallTest {
 protected:
  std::map<std::string_view, uint64_t> Refused() { return dispatcher->Activity(key).refused; }
};

TEST_F(RefusedCallsTest, OfAProgramAreThereWhenItsCallHasEnded) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_THAT(Refused(), IsEmpty());
  sandbox->refusals = {{"mount", 3}};
  (void)Call(Request());
  EXPECT_THAT(Refused(), ElementsAre(Pair("mount", 3)));
}

TEST_F(RefusedCallsTest, AddUpOverTheVersionsOfAFunction) {
  sandbox->refusals = {{"mount", 3}};
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  (void)Call(Request());
  auto second = MakeVersion(SandboxMode::kExec);
  second->number = 2;
  second->id = 2;
  sandbox->refusals = {{"ptrace", 1}};
  ASSERT_TRUE(Activate(second).ok());
  (void)Call(Request());
  EXPECT_THAT(Refused(), ElementsAre(Pair("mount", 3), Pair("ptrace", 1)));
}

TEST_F(RefusedCallsTest, OfAServerAreAskedForWhenSomebodyLooks) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  (void)Call(Request());
  sandbox->refusals = {{"socket", 1}};
  EXPECT_THAT(Refused(), ElementsAre(Pair("socket", 1)));
  EXPECT_THAT(Refused(), ElementsAre(Pair("socket", 1))) << "each counts once";
}

}  // namespace
}  // namespace pulga
