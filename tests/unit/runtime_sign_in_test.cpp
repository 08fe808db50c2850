// Signing in: the hash by a published vector, the waits by the clock, attempts over real threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/accounts/password.h"
#include "runtime/accounts/sign_in.h"

namespace pulga {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kPassword = "correct horse battery";

TEST(Passwords, AreHashedByScryptAsPublished) {
  // RFC 7914, section 12, the third vector, as crypt(5) writes it.
  const std::string published =
      "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D";
  EXPECT_TRUE(MatchesPassword("pleaseletmein", published));
  EXPECT_FALSE(MatchesPassword("pleaseletmein ", published));
}

TEST(Passwords, HaveASaltEachAndTheParametersWithThem) {
  const std::string hash = HashPassword(kPassword).value();
  EXPECT_THAT(hash, StartsWith("$7$C6....3....")) << "N = 2^14, r = 8, p = 5";
  EXPECT_NE(hash, HashPassword(kPassword).value());
  EXPECT_TRUE(MatchesPassword(kPassword, hash));
  EXPECT_FALSE(MatchesPassword("another password", hash));
  for (const char* none : {"", "*", "*0", "$7$", "plain"}) {
    EXPECT_FALSE(MatchesPassword(kPassword, none)) << none;
  }
  EXPECT_FALSE(MatchesPassword(kPassword, HashOfNobody()));
  EXPECT_EQ(HashOfNobody().size(), hash.size());
}

TEST(Passwords, AreNeitherShortNorMadeOfNothing) {
  for (const std::string& good :
       {std::string(kPassword), std::string("πάσσωορδ-ab"), std::string(255, 'a') + "b"}) {
    EXPECT_TRUE(CheckPassword(good, "ada").ok()) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("short"), std::string(257, 'b'), std::string(20, 'a'),
        std::string("long enough\0but", 15), std::string("my name is ADA L")}) {
    EXPECT_EQ(CheckPassword(bad, "ada").error().code, Code::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(CheckPassword("has an a in it", "a").ok()) << "any password has";
  EXPECT_FALSE(MatchesPassword(std::string("a\0b", 3), HashOfNobody()));
}

class SignInLimitsTest : public ::testing::Test {
 protected:
  void Fail(const std::string& user, const std::string& address, size_t times) {
    for (size_t i = 0; i < times; ++i) limits_.NoteFailure(user, address, clock_.Now());
  }
  Duration Wait(const std::string& user, const std::string& address) {
    return limits_.WaitOf(user, address, clock_.Now());
  }
  SignInLimits limits_;
  FakeClock clock_;
};

TEST_F(SignInLimitsTest, WaitsDoubleUpToAQuarterOfAnHour) {
  Fail("ada", "here", SignInLimits::kFreeForUser - 1);
  EXPECT_EQ(Wait("ada", "here"), seconds(0));
  for (const int wait : {1, 2, 4, 8, 16, 32}) {
    Fail("ada", "here", 1);
    EXPECT_EQ(Wait("ada", "here"), seconds(wait));
  }
  clock_.Advance(seconds(31));
  EXPECT_EQ(Wait("ada", "here"), seconds(1));
  Fail("ada", "here", 1000);
  EXPECT_EQ(Wait("ada", "here"), SignInLimits::kLongestOfUser);
  clock_.Advance(SignInLimits::kForgiven);
  EXPECT_EQ(Wait("ada", "here"), seconds(0));
  Fail("ada", "here", 1);
  EXPECT_EQ(Wait("ada", "here"), seconds(0)) << "counted from the first again";
}

TEST_F(SignInLimitsTest, NobodyIsLockedOutElsewhereNorForLongWhereOthersFail) {
  Fail("ada", "here", 19);
  EXPECT_EQ(Wait("ada", "there"), seconds(0));
  EXPECT_EQ(Wait("bob", "here"), seconds(0));
  Fail("ada", "here", 100);
  EXPECT_EQ(Wait("bob", "here"), SignInLimits::kLongestOfAddress);
  limits_.NoteSuccess("ada", "here");
  EXPECT_EQ(Wait("ada", "here"), SignInLimits::kLongestOfAddress);
}

TEST_F(SignInLimitsTest, IsBoundedAndForgetsTheOldestFirst) {
  Fail("first", "here", 30);
  clock_.Advance(seconds(1));
  for (int i = 0; i < 5000; ++i) {
    const std::string n = std::to_string(i);
    clock_.Advance(std::chrono::milliseconds(1));
    limits_.NoteFailure("u" + n, "a" + n, clock_.Now());
    ASSERT_LE(limits_.size(), SignInLimits::kMaxEntries);
  }
  EXPECT_EQ(Wait("first", "here"), seconds(0));
  clock_.Advance(std::chrono::milliseconds(1));
  Fail("last", "there", 10);
  EXPECT_GT(Wait("last", "there"), seconds(0));
}

class SignInTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Open();
    const Status added = Wait([&](auto done) {
      accounts_->AddUser({"ada", Role::kStandard, {}, 0, ""},
                         [done](const Result<User>& user) { done(Failure(user)); });
    });
    ASSERT_TRUE(added.ok());
    ASSERT_TRUE(SetPassword("ada", kPassword).ok());
  }
  void TearDown() override { Close(); }
  void Open() {
    store_ = StateStore::Open(dir_.path()).value();
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    accounts_ = std::make_unique<AccountService>(AccountParts{*loop_, clock_, *storage_, *store_});
    sign_in_ = std::make_unique<SignIn>(*loop_, clock_, *accounts_);
    StoredState stored = store_->Load().value();
    accounts_->Load(std::move(stored.users), std::move(stored.keys));
  }
  void Close() {
    sign_in_.reset();
    storage_.reset();
    accounts_.reset();
    store_.reset();
  }
  template <typename T>
  static Status Failure(const Result<T>& result) {
    return result.ok() ? OkStatus() : Status(result.error());
  }
  template <typename Start>
  Status Wait(Start start) {
    std::optional<Status> answer;
    start([&](Status status) { answer = std::move(status); });
    while (!answer) loop_->RunOnce(std::chrono::seconds(1));
    return *answer;
  }
  Status SetPassword(const std::string& user, const std::string& password) {
    return Wait([&](auto done) { sign_in_->SetPassword(user, password, done); });
  }
  Status ChangeAda(UserChange change) {
    return Wait([&](auto done) {
      accounts_->ChangeUser("ada", change,
                            [done](const Result<User>& changed) { done(Failure(changed)); });
    });
  }
  // The key's text, or what went wrong.
  std::string Try(const std::string& user, const std::string& password,
                  const std::string& address = "here") {
    std::string answer;
    sign_in_->Try({user, password, address}, [&](const Result<NewKey>& made, Duration wait) {
      answer = made.ok() ? made->text : made.error().message;
      waited_ = wait;
    });
    while (answer.empty()) loop_->RunOnce(std::chrono::seconds(1));
    return answer;
  }
  bool Opens(const std::string& key) { return accounts_->Identify(key).has_value(); }

  TempDir dir_{TempDir::Create("/tmp/pulga-sign-in-test-").value()};
  FakeClock clock_;
  std::unique_ptr<EventLoop> loop_{EventLoop::Create().value()};
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<AccountService> accounts_;
  std::unique_ptr<SignIn> sign_in_;
  Duration waited_{0};
};

TEST_F(SignInTest, GivesAKeyThatEndsByItself) {
  const std::string key = Try("ada", kPassword);
  ASSERT_TRUE(Opens(key)) << key;
  EXPECT_EQ(accounts_->Identify(key)->role, Role::kStandard);
  clock_.Advance(SignIn::kLifetime);
  EXPECT_FALSE(Opens(key));
}

TEST_F(SignInTest, SaysTheSameWhateverIsWrong) {
  const std::string wrong = Try("ada", "another password");
  EXPECT_EQ(wrong, "the name or the password is wrong");
  EXPECT_EQ(Try("ghost", kPassword), wrong);
  EXPECT_EQ(Try("admin", kPassword), wrong) << "has no password";
  EXPECT_EQ(Try("ada", std::string(5000, 'x')), wrong);
  ASSERT_TRUE(ChangeAda({{}, UserState::kDisabled}).ok());
  EXPECT_EQ(Try("ada", kPassword), wrong);
  ASSERT_TRUE(ChangeAda({Role::kLimited, UserState::kActive}).ok());
  EXPECT_TRUE(Opens(Try("ada", kPassword))) << "a change of the user keeps the password";
}

TEST_F(SignInTest, ANewPasswordEndsSessionsAndNotOtherKeys) {
  const std::string session = Try("ada", kPassword);
  std::string lasting;
  accounts_->MakeKey({"ada", "", kAllScopes, {}},
                     [&](const Result<NewKey>& made) { lasting = made->text; });
  while (lasting.empty()) loop_->RunOnce(seconds(1));
  ASSERT_TRUE(SetPassword("ada", "an entirely new one").ok());
  EXPECT_FALSE(Opens(session));
  EXPECT_TRUE(Opens(lasting));
  EXPECT_FALSE(Opens(Try("ada", kPassword)));
  Close();
  Open();
  EXPECT_FALSE(Opens(session));
  EXPECT_TRUE(Opens(Try("ada", "an entirely new one")));
  EXPECT_EQ(SetPassword("ada", "short").error().code, Code::kInvalidArgument);
  EXPECT_EQ(SetPassword("ghost", kPassword).error().code, Code::kNotFound);
}

TEST_F(SignInTest, WrongOnesWaitHereAndNotElsewhere) {
  for (uint32_t i = 0; i < SignInLimits::kFreeForUser; ++i) Try("ada", "another password");
  EXPECT_EQ(Try("ada", kPassword), "too many wrong passwords: try again later");
  EXPECT_EQ(waited_, seconds(1));
  EXPECT_TRUE(Opens(Try("ada", kPassword, "elsewhere")));
  clock_.Advance(seconds(1));
  EXPECT_TRUE(Opens(Try("ada", kPassword)));
}

TEST_F(SignInTest, AFloodIsRefusedAtOnceAndOldSessionsMakeRoom) {
  size_t refused = 0;
  size_t answered = 0;
  for (size_t i = 0; i < SignIn::kMaxWaiting + 5; ++i) {
    sign_in_->Try({"ada", kPassword, "here"}, [&](const Result<NewKey>& made, Duration) {
      refused += !made.ok() && made.error().code == Code::kUnavailable;
      ++answered;
    });
  }
  EXPECT_EQ(refused, 5U);
  while (answered < SignIn::kMaxWaiting + 5) loop_->RunOnce(seconds(1));
  for (size_t i = 0; i < 4; ++i) Try("ada", kPassword);
  EXPECT_EQ(accounts_->Keys().size(), kMaxSessionsPerUser);
}

TEST_F(SignInTest, NoPasswordIsOnDiskAndAnEndDoesNotWaitForAttempts) {
  for (size_t i = 0; i < SignIn::kMaxWaiting; ++i) {
    sign_in_->Try({"ada", kPassword, "here"}, [](const Result<NewKey>&, Duration) { FAIL(); });
  }
  Close();
  EXPECT_THAT(ReadFile(dir_.path() + "/pulga.db", 1 << 24).value(), Not(HasSubstr(kPassword)));
}

}  // namespace
}  // namespace pulga
