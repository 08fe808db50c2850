// Secrets: the sealing by published vectors, the vault over a real database, the service over both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <utility>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "runtime/secrets/secret_sandbox.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Raw(std::string_view hex) { return HexDecode(hex).value(); }

// The AES-256 cases of "The Galois/Counter Mode of Operation", McGrew and Viega, appendix B.
struct Vector {
  const char *key, *nonce, *belongs_to, *value, *sealed;
};
constexpr const char* kKey = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
constexpr Vector kVectors[] = {
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "00000000000000000000000000000000",
     "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {kKey, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
     "b525b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b105682"
     "8838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"}};

TEST(SealKey, SealsAndOpensAsThePublishedVectorsSay) {
  for (const Vector& v : kVectors) {
    const SealKey key = SealKey::FromHex(v.key).value();
    const auto sealed = key.SealWith(Raw(v.nonce), Raw(v.value), Raw(v.belongs_to));
    EXPECT_EQ(HexEncode(sealed.text), v.sealed);
    EXPECT_EQ(key.Open(sealed, Raw(v.belongs_to)), Raw(v.value));
  }
}

TEST(SealKey, OpensNothingThatWasChangedCutOrMoved) {
  const SealKey key = SealKey::FromHex(kKey).value();
  const SealedText sealed = key.Seal("a value", "mine");
  EXPECT_EQ(key.Open(sealed, "mine"), "a value");
  EXPECT_FALSE(key.Open(sealed, "yours"));
  EXPECT_FALSE(SealKey::FromHex(std::string(64, '1'))->Open(sealed, "mine"));
  for (size_t i = 0; i < sealed.text.size(); ++i) {
    SealedText changed = sealed;
    changed.text[i] = static_cast<char>(changed.text[i] ^ 1);
    EXPECT_FALSE(key.Open(changed, "mine")) << i;
    changed.text = sealed.text.substr(0, i);
    EXPECT_FALSE(key.Open(changed, "mine")) << i;
  }
  EXPECT_FALSE(key.Open({sealed.nonce.substr(1), sealed.text}, "mine"));
}

TEST(SealKey, NeverUsesANonceTwiceAndTakesWholeKeysOnly) {
  const SealKey key = SealKey::FromHex(kKey).value();
  std::set<std::string> nonces;
  for (int i = 0; i < 1000; ++i) nonces.insert(key.Seal("", "").nonce);
  EXPECT_EQ(nonces.size(), 1000U);
  EXPECT_EQ(key.id().size(), 16U);
  EXPECT_NE(key.id(), SealKey::FromHex(std::string(64, '1'))->id());
  for (const char* bad : {"", "00", "zz", "FEFFE9928665731C"}) EXPECT_FALSE(SealKey::FromHex(bad));
}

TEST(SecretNames, AreNoPaths) {
  for (const char* good : {"a", "db.password", "A_b-1.c", "0"}) {
    EXPECT_TRUE(CheckSecretName(good).ok()) << good;
  }
  EXPECT_TRUE(CheckSecretName(std::string(253, 'a')).ok());
  for (const char* bad : {"a/b", "..", "a..b", "/etc/passwd", "../x"}) {
    EXPECT_EQ(CheckSecretName(bad).error().message, "directory traversal found in name") << bad;
  }
  for (const std::string& bad : {std::string(), std::string(" "), std::string(".hidden"),
                                 std::string("a\0b", 3), std::string("ä"), std::string(254, 'a')}) {
    EXPECT_THAT(CheckSecretName(bad).error().message, HasSubstr("253")) << bad;
  }
}

FunctionKey Key(const std::string& name) { return {"admin", "openfaas-fn", name}; }

class SecretVaultTest : public ::testing::Test {
 protected:
  void SetUp() override { store_ = StateStore::Open(dir_.path()).value(); }
  Status Put(const std::string& name, std::string_view value) {
    return vault().Put(Key(name), value, 1000);
  }
  std::string Reveal(const std::string& name) {
    const auto files = vault().Reveal(Key("f"), {name});
    return files.ok() ? files->at(0).value : "error: " + files.error().message;
  }
  SecretVault vault() { return {*store_, dir_.path()}; }
  std::string KeyPath() const { return dir_.path() + "/secrets.key"; }

  TempDir dir_{TempDir::Create("/tmp/pulga-secrets-test-").value()};
  std::unique_ptr<StateStore> store_;
};

TEST_F(SecretVaultTest, KeepsValuesOfAllBytesAndNothingInClear) {
  const std::string value("\0\xff secret \n", 11);
  ASSERT_TRUE(Put("a", value).ok());
  ASSERT_TRUE(Put("b", "").ok());
  EXPECT_EQ(Reveal("a"), value);
  EXPECT_EQ(Reveal("b"), "");
  const auto both = vault().Reveal(Key("f"), {"b", "a"});
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->at(1).name, "a");
  store_.reset();
  EXPECT_THAT(ReadFile(dir_.path() + "/pulga.db", 1 << 24).value(), Not(HasSubstr(" secret ")));
}

TEST_F(SecretVaultTest, MakesItsKeyWithTheFirstSecretAndForNobodyElse) {
  EXPECT_FALSE(std::filesystem::exists(KeyPath()));
  ASSERT_TRUE(Put("a", "1").ok());
  struct stat st = {};
  ASSERT_EQ(stat(KeyPath().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  const std::string key = ReadFile(KeyPath()).value();
  ASSERT_EQ(chmod(KeyPath().c_str(), 0644), 0);
  ASSERT_TRUE(Put("b", "2").ok());
  EXPECT_EQ(ReadFile(KeyPath()).value(), key);
  ASSERT_EQ(stat(KeyPath().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600U);
}

TEST_F(SecretVaultTest, LosesNoRowOverALostKey) {
  ASSERT_TRUE(Put("a", "1").ok());
  std::filesystem::rename(KeyPath(), KeyPath() + ".away");
  EXPECT_THAT(Reveal("a"), HasSubstr("secrets.key is missing"));
  EXPECT_THAT(Put("b", "2").error().message, HasSubstr("secrets.key is missing"));
  EXPECT_FALSE(std::filesystem::exists(KeyPath())) << "a new key while rows need the old one";
  std::filesystem::rename(KeyPath() + ".away", KeyPath());
  EXPECT_EQ(Reveal("a"), "1");
}

TEST_F(SecretVaultTest, SaysWhoseAKeyIsThatSomebodyElsePutBack) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_EQ(chown(KeyPath().c_str(), 1, 1), 0);
  EXPECT_EQ(Reveal("a"), "1") << "its mode is right already";
  ASSERT_EQ(chmod(KeyPath().c_str(), 0644), 0);
  EXPECT_THAT(Reveal("a"), HasSubstr("chown 0 " + KeyPath()));
  EXPECT_EQ(Put("b", "2").error().code, Code::kUnavailable);
}

TEST_F(SecretVaultTest, TellsOfAnotherKeyAndADamagedOne) {
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_TRUE(WriteFile(KeyPath(), std::string(64, '7'), 0600).ok());
  EXPECT_THAT(Reveal("a"), HasSubstr("put the right one back"));
  ASSERT_TRUE(Put("b", "2").ok());
  EXPECT_EQ(Reveal("b"), "2") << "each row knows its own key";
  EXPECT_THAT(Reveal("a"), HasSubstr("is sealed with key"));
  ASSERT_TRUE(Put("a", "3").ok()) << "an update is the way out";
  EXPECT_EQ(Reveal("a"), "3");
  ASSERT_TRUE(WriteFile(KeyPath(), "short", 0600).ok());
  EXPECT_THAT(Reveal("a"), HasSubstr("64 hex digits"));
}

TEST_F(SecretVaultTest, OpensNoRowInAnothersPlace) {
  ASSERT_TRUE(Put("a", "1").ok());
  StoredSecret row = store_->Secret(Key("a")).value();
  row.key.name = "b";
  ASSERT_TRUE(store_->PutSecret(row).ok());
  EXPECT_THAT(Reveal("b"), HasSubstr("is damaged"));
  EXPECT_EQ(vault().Reveal({"eve", "openfaas-fn", "f"}, {"a"}).error().code, Code::kNotFound);
  EXPECT_THAT(Reveal("c"), HasSubstr("unable to find secret: c"));
}

class SecretServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = EventLoop::Create().value();
    Restart();
  }
  void TearDown() override { Stop(); }
  void Stop() {
    storage_.reset();
    service_.reset();
    store_.reset();
  }
  void Restart() {
    Stop();
    store_ = StateStore::Open(dir_.path()).value();
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    service_ =
        std::make_unique<SecretService>(SecretParts{*loop_, clock_, *storage_, *store_, dir_.path(),
                                                    [this](const FunctionKey&) { return users_; }});
    service_->Load(store_->Load().value().secrets);
  }
  Result<SecretPut> Put(const std::string& name, std::string value,
                        SecretWrite write = SecretWrite::kEither) {
    std::optional<Result<SecretPut>> put;
    service_->Put(Key(name), std::move(value), write,
                  [&](Result<SecretPut> got) { put = std::move(got); });
    while (!put) loop_->RunOnce(std::chrono::seconds(1));
    return *put;
  }
  Status Remove(const std::string& name, SecretRemoval removal = SecretRemoval::kUnused) {
    std::optional<Status> removed;
    service_->Remove(Key(name), removal, [&](Status status) { removed = std::move(status); });
    while (!removed) loop_->RunOnce(std::chrono::seconds(1));
    return *removed;
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const SecretView& secret : service_->List()) names.push_back(secret.key.name);
    return names;
  }

  TempDir dir_{TempDir::Create("/tmp/pulga-secrets-test-").value()};
  FakeClock clock_;
  std::vector<std::string> users_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<SecretService> service_;
};

TEST_F(SecretServiceTest, CreatesReplacesAndRemovesAlsoOverARestart) {
  EXPECT_EQ(Put("b", "12").value().effect, SecretPut::Effect::kCreated);
  EXPECT_EQ(Put("a", "1").value().effect, SecretPut::Effect::kCreated);
  clock_.Advance(std::chrono::seconds(5));
  const SecretPut again = Put("a", "123").value();
  EXPECT_EQ(again.effect, SecretPut::Effect::kReplaced);
  EXPECT_EQ(again.secret.bytes, 3U);
  EXPECT_EQ(again.secret.changed_unix_ms - again.secret.created_unix_ms, 5000);
  Restart();
  EXPECT_THAT(Names(), ElementsAre("a", "b"));
  EXPECT_EQ(service_->List()[0].created_unix_ms, again.secret.created_unix_ms);
  EXPECT_TRUE(Remove("a").ok());
  EXPECT_EQ(Remove("a").error().code, Code::kNotFound);
  Restart();
  EXPECT_THAT(Names(), ElementsAre("b"));
}

TEST_F(SecretServiceTest, KeepsToWhatWasMeantAndToItsBounds) {
  EXPECT_EQ(Put("a", "1", SecretWrite::kReplace).error().code, Code::kNotFound);
  EXPECT_TRUE(Put("a", "1", SecretWrite::kCreate).ok());
  EXPECT_EQ(Put("a", "2", SecretWrite::kCreate).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(Put("a", "2", SecretWrite::kReplace).ok());
  EXPECT_TRUE(Put("a", std::string(kMaxSecretBytes, 'x')).ok());
  EXPECT_EQ(Put("a", std::string(kMaxSecretBytes + 1, 'x')).error().code, Code::kTooLarge);
  EXPECT_EQ(Put("a/b", "x").error().code, Code::kInvalidArgument);
}

TEST_F(SecretServiceTest, GivesAFunctionNoMoreThanItMayHaveTogether) {
  std::vector<std::string> names;
  for (int i = 0; i < 8; ++i) {
    names.push_back("s" + std::to_string(i));
    ASSERT_TRUE(Put(names.back(), std::string(kMaxSecretBytes, 'x')).ok());
  }
  ASSERT_TRUE(Put("one", "1").ok());
  EXPECT_TRUE(service_->HoldFor(Key("f"), names).ok());
  names.push_back("one");
  const auto refused = service_->HoldFor(Key("f"), names);
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message, HasSubstr("may have 8"));
  std::optional<Result<std::vector<SecretFile>>> files;
  service_->Reveal(Key("f"), names, [&](auto got) { files = std::move(got); });
  while (!files) loop_->RunOnce(std::chrono::seconds(1));
  EXPECT_EQ(files->error().message, refused.error().message);
}

TEST_F(SecretServiceTest, KeepsWhatIsInUseUnlessForced) {
  ASSERT_TRUE(Put("a", "1").ok());
  users_ = {"f", "g"};
  EXPECT_THAT(Remove("a").error().message, HasSubstr("in use by function f, function g"));
  EXPECT_EQ(service_->List()[0].used_by, users_);
  EXPECT_TRUE(Remove("a", SecretRemoval::kForced).ok());
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_F(SecretServiceTest, KeepsWhatADeployHoldsForAsLongAsItTakes) {
  ASSERT_TRUE(Put("a", "1").ok());
  EXPECT_EQ(service_->HoldFor(Key("f"), {"a", "b"}).error().message, "unable to find secret: b");
  auto hold = service_->HoldFor(Key("f"), {"a"});
  ASSERT_TRUE(hold.ok());
  EXPECT_THAT(Remove("a").error().message, HasSubstr("in use by a function being deployed"));
  hold->reset();
  EXPECT_TRUE(Remove("a").ok());
}

// Versions are built at once, or when told; what they were given is remembered.
class SecretsSandbox final : public Sandbox {
 public:
  bool available() const override { return true; }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents&, BuildDone done) override {
    built.push_back(spec);
    const auto finish = [this, spec, done = std::move(done)] {
      SecretUse use{spec.version_id, spec.owner, spec.function, {}};
      for (const SecretFile& secret : spec.secrets) use.names.push_back(secret.name);
      if (!use.names.empty()) uses.push_back(use);
      done(std::unique_ptr<Spawner>());
    };
    if (hold) {
      held = finish;
    } else {
      finish();
    }
  }
  std::vector<SecretUse> SecretUses() const override { return uses; }
  void SetSecrets(uint64_t version_id, const std::vector<SecretFile>& secrets) override {
    for (const SecretFile& secret : secrets) {
      given.push_back(std::to_string(version_id) + " " + secret.name + "=" + secret.value);
    }
  }
  uint64_t RunUnpack(UnpackJob, std::function<void(Status)>) override { return 0; }
  void CancelUnpack(uint64_t) override {}
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)>) override {}

  bool hold = false;
  std::function<void()> held;
  std::vector<VersionSpec> built;
  std::vector<SecretUse> uses;
  std::vector<std::string> given;
};

class NoEvents final : public SpawnerEvents {
 public:
  void OnParked(uint16_t) override {}
  void OnExit(const InstanceExit&) override {}
  void OnSockets(uint16_t, std::vector<UniqueFd>) override {}
  void OnGone(const Error&) override {}
};

class SecretSandboxTest : public SecretServiceTest {
 protected:
  void SetUp() override {
    SecretServiceTest::SetUp();
    with_.SetService(*service_);
  }
  // The build's error, or "".
  std::string Build(uint64_t id, const std::vector<std::string>& names,
                    const std::string& function = "openfaas-fn/f") {
    VersionSpec spec;
    spec.version_id = id;
    spec.owner = "admin";
    spec.function = function;
    for (const std::string& name : names) spec.secrets.push_back({name, ""});
    answer_.reset();
    with_.BuildVersion(spec, events_, [this](const Result<std::unique_ptr<Spawner>>& built) {
      answer_ = built.ok() ? "" : built.error().message;
    });
    while (!answer_ && !sandbox_.held) loop_->RunOnce(std::chrono::seconds(1));
    return answer_.value_or("held");
  }
  void Settle() {
    bool done = false;
    storage_->Run([] { return true; }, [&done](bool) { done = true; });
    while (!done) loop_->RunOnce(std::chrono::seconds(1));
  }

  SecretsSandbox sandbox_;
  SecretSandbox with_{sandbox_};
  NoEvents events_;
  std::optional<std::string> answer_;
};

TEST_F(SecretSandboxTest, GivesAVersionItsOwnValues) {
  ASSERT_TRUE(Put("a", "1").ok() && Put("b", "2").ok());
  EXPECT_EQ(Build(7, {"b"}), "");
  ASSERT_EQ(sandbox_.built.size(), 1U);
  ASSERT_EQ(sandbox_.built[0].secrets.size(), 1U);
  EXPECT_EQ(sandbox_.built[0].secrets[0].value, "2");
  EXPECT_EQ(Build(8, {}), "");
  EXPECT_THAT(Build(9, {"b", "c"}), HasSubstr("unable to find secret: c"));
  EXPECT_THAT(Build(9, {"b"}, "other/f"), HasSubstr("unable to find secret: b"));
}

TEST_F(SecretSandboxTest, TellsThoseThatLiveOfAChangeAndNobodyElse) {
  ASSERT_TRUE(Put("a", "1").ok() && Put("b", "2").ok());
  ASSERT_EQ(Build(7, {"a", "b"}) + Build(8, {"b"}) + Build(9, {}), "");
  sandbox_.uses.push_back({10, "admin", "other/f", {"a"}});
  ASSERT_TRUE(Put("a", "new").ok());
  Settle();
  EXPECT_THAT(sandbox_.given, ElementsAre("7 a=new", "7 b=2"));
}

TEST_F(SecretSandboxTest, WhatIsMadeAnewAfterAForcedRemovalReachesThoseThatLive) {
  ASSERT_TRUE(Put("a", "1").ok());
  ASSERT_EQ(Build(7, {"a"}), "");
  users_ = {"f"};
  ASSERT_TRUE(Remove("a", SecretRemoval::kForced).ok());
  ASSERT_EQ(Put("a", "2").value().effect, SecretPut::Effect::kCreated);
  Settle();
  EXPECT_THAT(sandbox_.given, ElementsAre("7 a=2"));
}

TEST_F(SecretSandboxTest, AChangeDuringABuildIsNotLost) {
  ASSERT_TRUE(Put("a", "1").ok());
  sandbox_.hold = true;
  ASSERT_EQ(Build(7, {"a"}), "held");
  ASSERT_TRUE(Put("a", "2").ok());
  std::exchange(sandbox_.held, nullptr)();
  Settle();
  EXPECT_EQ(answer_, "");
  EXPECT_THAT(sandbox_.given, ElementsAre("7 a=2"));
}

}  // namespace
}  // namespace pulga
