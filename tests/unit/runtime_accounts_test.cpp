// Accounts: the permission table, the text of keys, the service over a real database and thread.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "images/digest.h"
#include "runtime/accounts/account_service.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// As docs/accounts.md has it: administrator, standard, limited; of each own and others'.
struct Row {
  Action action;
  bool permitted[6];
};
constexpr Row kTable[] = {{Action::kUseAccount, {true, true, true, false, true, false}},
                          {Action::kMakeKeys, {true, true, true, false, false, false}},
                          {Action::kCall, {true, true, true, true, true, true}},
                          {Action::kSeeBoard, {true, true, true, true, false, false}},
                          {Action::kSeeFunctions, {true, true, false, false, false, false}},
                          {Action::kDeploy, {true, true, false, false, false, false}},
                          {Action::kAdminister, {true, true, false, false, false, false}}};

TEST(Permissions, AreThoseOfTheTable) {
  for (const Row& row : kTable) {
    size_t column = 0;
    for (const Role role : {Role::kAdministrator, Role::kStandard, Role::kLimited}) {
      for (const Ownership whose : {Ownership::kOwn, Ownership::kOthers}) {
        EXPECT_EQ(Permits(role, row.action, whose), row.permitted[column++])
            << RoleName(role) << " action " << static_cast<int>(row.action);
      }
    }
  }
}

TEST(Permissions, OfAKeyAreThoseOfItsUserAndItsScopes) {
  const auto may = [](Scopes scopes, Action action) {
    return Permits({"ada", Role::kAdministrator, scopes}, action, Ownership::kOthers);
  };
  const auto sign_in = static_cast<Scopes>(Scope::kSignIn);
  const auto deploy = static_cast<Scopes>(Scope::kDeploy);
  for (const Row& row : kTable) {
    EXPECT_FALSE(may(0, row.action));
    EXPECT_TRUE(may(kAllScopes, row.action));
    const bool is_call = row.action == Action::kCall;
    EXPECT_EQ(may(static_cast<Scopes>(Scope::kInvoke), row.action), is_call);
    EXPECT_EQ(may(sign_in, row.action), row.action != Action::kDeploy && !is_call);
    const bool about_functions =
        row.action == Action::kDeploy || row.action == Action::kSeeFunctions;
    EXPECT_EQ(may(deploy, row.action), about_functions);
  }
  EXPECT_FALSE(Permits({"ada", Role::kLimited, kAllScopes}, Action::kDeploy, Ownership::kOwn));
}

TEST(AccountRules, RolesAndScopesHaveNames) {
  for (const Role role : {Role::kAdministrator, Role::kStandard, Role::kLimited}) {
    EXPECT_EQ(ParseRole(RoleName(role)), role);
  }
  for (const char* bad : {"", "admin", "Administrator", "root"}) EXPECT_FALSE(ParseRole(bad));
  EXPECT_THAT(ScopeNames(kAllScopes), ::testing::ElementsAre("sign-in", "invoke", "deploy"));
  EXPECT_EQ(ParseScope("deploy"), Scope::kDeploy);
  EXPECT_FALSE(ParseScope("all"));
}

TEST(AccountRules, NamesAreNoPathsAndLabelsNoControlCharacters) {
  for (const char* good : {"ada", "a", "0", "ci-bot"})
    EXPECT_TRUE(CheckUserName(good).ok()) << good;
  for (const std::string& bad :
       {std::string(), std::string(".."), std::string("a/b"), std::string("Ada"),
        std::string("-rf"), std::string("a\0b", 3), std::string("ä"), std::string(64, 'a')}) {
    EXPECT_FALSE(CheckUserName(bad).ok()) << bad;
  }
  EXPECT_TRUE(CheckKeyLabel("the builder's, ümlaut").ok());
  for (const std::string& bad :
       {std::string("a\nb"), std::string("\x1b[2J"), std::string(101, 'a')}) {
    EXPECT_FALSE(CheckKeyLabel(bad).ok()) << bad;
  }
}

TEST(AccountRules, OnlyWholeKeysAreKeys) {
  const std::string id(16, 'a');
  const std::string secret(64, '0');
  const std::string text = "pulga_" + id + "_" + secret;
  const auto key = ParseKeyText(text);
  ASSERT_TRUE(key);
  EXPECT_EQ(key->id, id);
  EXPECT_EQ(key->secret, secret);
  for (const std::string& bad :
       {std::string(), std::string("pulga_"), id + "_" + secret, "pulga_" + id + "-" + secret,
        "pulga_" + id + "_" + secret + "0", "pulga_" + id + "_" + std::string(64, 'A'),
        "pulga_" + std::string(16, '%') + "_" + secret, "Pulga_" + id + "_" + secret}) {
    EXPECT_FALSE(ParseKeyText(bad)) << bad;
  }
}

class AccountServiceTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void TearDown() override { Close(); }
  void Open() {
    store_ = StateStore::Open(dir_.path()).value();
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    accounts_ = std::make_unique<AccountService>(AccountParts{*loop_, clock_, *storage_, *store_});
    StoredState stored = store_->Load().value();
    accounts_->Load(std::move(stored.users), std::move(stored.keys));
  }
  void Close() {
    storage_.reset();
    accounts_.reset();
    store_.reset();
  }
  // What `start` gives its callback.
  template <typename T, typename Start>
  T Wait(Start start) {
    std::optional<T> answer;
    start([&](T value) { answer = std::move(value); });
    while (!answer) loop_->RunOnce(std::chrono::seconds(1));
    return std::move(*answer);
  }
  Result<User> Add(const std::string& name, Role role = Role::kStandard) {
    return Wait<Result<User>>([&](auto done) {
      accounts_->AddUser({name, role, {}, 0, ""}, done);
    });
  }
  Result<User> Change(const std::string& name, UserChange change) {
    return Wait<Result<User>>([&](auto done) { accounts_->ChangeUser(name, change, done); });
  }
  Status Remove(const std::string& name) {
    return Wait<Status>([&](auto done) { accounts_->RemoveUser(name, done); });
  }
  Result<NewKey> Make(const KeyOrder& order) {
    return Wait<Result<NewKey>>([&](auto done) { accounts_->MakeKey(order, done); });
  }
  Status Revoke(const std::string& id) {
    return Wait<Status>([&](auto done) { accounts_->RevokeKey(id, done); });
  }
  std::string WhoHas(const std::string& key) {
    const auto who = accounts_->Identify(key);
    return who ? who->user + " " + std::string(RoleName(who->role)) : "nobody";
  }

  TempDir dir_{TempDir::Create("/tmp/pulga-accounts-test-").value()};
  FakeClock clock_;
  std::unique_ptr<EventLoop> loop_{EventLoop::Create().value()};
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<AccountService> accounts_;
};

TEST_F(AccountServiceTest, TheAdministratorIsThereFromTheFirstAndStaysOne) {
  ASSERT_EQ(accounts_->Users().size(), 1U);
  EXPECT_EQ(accounts_->Users()[0].role, Role::kAdministrator);
  EXPECT_EQ(Remove("admin").error().code, Code::kAlreadyExists);
  EXPECT_EQ(Change("admin", {Role::kLimited, {}}).error().code, Code::kAlreadyExists);
  EXPECT_EQ(Change("admin", {{}, UserState::kDisabled}).error().code, Code::kAlreadyExists);
  EXPECT_EQ(Add("admin").error().code, Code::kAlreadyExists);
}

TEST_F(AccountServiceTest, AKeyIsItsUsersUntilItIsRevoked) {
  ASSERT_TRUE(Add("ada").ok());
  const NewKey made = Make({"ada", "ci", kAllScopes, {}}).value();
  EXPECT_EQ(WhoHas(made.text), "ada standard");
  std::string wrong = made.text;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  EXPECT_EQ(WhoHas(wrong), "nobody");
  EXPECT_EQ(WhoHas("pulga_" + std::string(16, '0') + made.text.substr(22)), "nobody");
  ASSERT_TRUE(Revoke(made.key.id).ok());
  EXPECT_EQ(WhoHas(made.text), "nobody");
  EXPECT_EQ(Revoke(made.key.id).error().code, Code::kNotFound);
}

TEST_F(AccountServiceTest, NoTwoKeysAreAlikeAndNoneIsOnDisk) {
  std::set<std::string> texts;
  for (size_t i = 0; i < kMaxKeysPerUser; ++i) {
    const NewKey made = Make({"admin", "", kAllScopes, {}}).value();
    texts.insert(made.text);
    EXPECT_EQ(made.key.secret_sha256, Sha256Hex(ParseKeyText(made.text)->secret));
  }
  EXPECT_EQ(texts.size(), kMaxKeysPerUser);
  EXPECT_EQ(Make({"admin", "", kAllScopes, {}}).error().code, Code::kNoSpace);
  Close();
  const std::string file = ReadFile(dir_.path() + "/pulga.db", 1 << 24).value();
  for (const std::string& text : texts) {
    EXPECT_THAT(file, Not(HasSubstr(std::string(ParseKeyText(text)->secret))));
  }
  Open();
}

TEST_F(AccountServiceTest, AKeyEndsWithItsTime) {
  const NewKey made = Make({"admin", "", kAllScopes, std::chrono::hours(1)}).value();
  clock_.Advance(std::chrono::minutes(59));
  EXPECT_EQ(WhoHas(made.text), "admin administrator");
  clock_.Advance(std::chrono::minutes(1));
  EXPECT_EQ(WhoHas(made.text), "nobody");
}

TEST_F(AccountServiceTest, WhatBecomesOfAUserHoldsForTheirKeysAtOnce) {
  ASSERT_TRUE(Add("ada").ok());
  const std::string key = Make({"ada", "", kAllScopes, {}}).value().text;
  ASSERT_TRUE(Change("ada", {Role::kLimited, {}}).ok());
  EXPECT_EQ(WhoHas(key), "ada limited");
  ASSERT_TRUE(Change("ada", {{}, UserState::kDisabled}).ok());
  EXPECT_EQ(WhoHas(key), "nobody");
  ASSERT_TRUE(Change("ada", {{}, UserState::kActive}).ok());
  EXPECT_EQ(WhoHas(key), "ada limited");
  ASSERT_TRUE(Remove("ada").ok());
  ASSERT_TRUE(Add("ada").ok());
  EXPECT_EQ(WhoHas(key), "nobody") << "a new user of the same name is another one";
}

TEST_F(AccountServiceTest, AllOfItIsThereAfterARestart) {
  ASSERT_TRUE(Add("ada").ok());
  ASSERT_TRUE(Add("bob").ok());
  ASSERT_TRUE(Change("bob", {Role::kLimited, UserState::kDisabled}).ok());
  const NewKey kept = Make({"ada", "the builder's", 2, std::chrono::hours(2)}).value();
  const NewKey revoked = Make({"ada", "", kAllScopes, {}}).value();
  const NewKey bobs = Make({"bob", "", kAllScopes, {}}).value();
  ASSERT_TRUE(Revoke(revoked.key.id).ok());
  ASSERT_TRUE(Remove("bob").ok());
  Close();
  Open();
  EXPECT_EQ(WhoHas(kept.text), "ada standard");
  EXPECT_EQ(WhoHas(revoked.text), "nobody");
  ASSERT_EQ(accounts_->Keys().size(), 1U);
  const ApiKey key = accounts_->Keys()[0];
  EXPECT_EQ(key.label, "the builder's");
  EXPECT_EQ(key.scopes, 2);
  EXPECT_EQ(key.expires_unix_ms, kept.key.expires_unix_ms);
  EXPECT_EQ(accounts_->FindUser("bob"), nullptr);
}

TEST_F(AccountServiceTest, LastUseIsShownAtOnceAndWrittenTogether) {
  const NewKey made = Make({"admin", "", kAllScopes, {}}).value();
  EXPECT_EQ(accounts_->Keys()[0].last_used_unix_ms, 0);
  EXPECT_EQ(WhoHas(made.text + "0"), "nobody");
  EXPECT_EQ(accounts_->Keys()[0].last_used_unix_ms, 0) << "a wrong key is no use of it";
  EXPECT_EQ(WhoHas(made.text), "admin administrator");
  const int64_t used = UnixMillis(clock_);
  EXPECT_EQ(accounts_->Keys()[0].last_used_unix_ms, used);
  EXPECT_EQ(storage_->pending(), 0U) << "no write for a single use";
  accounts_->SaveUses();
  Close();
  Open();
  EXPECT_EQ(accounts_->Keys()[0].last_used_unix_ms, used);
}

TEST_F(AccountServiceTest, AnswersWhatIsNotThereOrTooMuch) {
  EXPECT_EQ(Remove("ghost").error().code, Code::kNotFound);
  EXPECT_EQ(Change("ghost", {Role::kLimited, {}}).error().code, Code::kNotFound);
  EXPECT_EQ(Make({"ghost", "", kAllScopes, {}}).error().code, Code::kNotFound);
  EXPECT_EQ(Add("../x").error().code, Code::kInvalidArgument);
  EXPECT_EQ(Make({"admin", "\n", kAllScopes, {}}).error().code, Code::kInvalidArgument);
  std::vector<User> many;
  for (size_t i = 1; i < kMaxUsers; ++i) many.push_back({"u" + std::to_string(i), {}, {}, 0, ""});
  accounts_->Load(std::move(many), {});
  EXPECT_EQ(Add("one-more").error().code, Code::kNoSpace);
}

}  // namespace
}  // namespace pulga
