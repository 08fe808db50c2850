#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/namespace_service.h"
#include "runtime/state_schema.h"
#include "runtime/state_store.h"
#include "tests/support/layers.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Layer;
using ::testing::SizeIs;

std::string Digest(char c) { return "sha256:" + std::string(64, c); }

ImageRecord Image(char c, std::vector<uint8_t> layers, std::vector<std::string> refs) {
  ImageRecord image;
  image.digest = Digest(c);
  image.refs = std::move(refs);
  image.platform = {"linux", "amd64", ""};
  image.config.entrypoint = {"/a", "b c", "\xff\x01"};
  image.config.exposed_ports = {80};
  image.config.labels = {{"k", "v"}};
  for (const uint8_t n : layers) {
    image.layers.push_back({std::string(64, '0'), Layer(n), n * 10U, false});
    image.size_bytes += n * 10U;
  }
  image.config_json = "{\"x\":\"\xfe\"}";
  return image;
}

class StateStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dir = TempDir::Create("/tmp/pulga-state-");
    ASSERT_TRUE(dir.ok());
    dir_ = std::make_unique<TempDir>(std::move(dir).value());
    Open();
  }
  void Open() {
    store_.reset();
    auto store = StateStore::Open(dir_->path());
    ASSERT_TRUE(store.ok()) << store.error().message;
    store_ = std::move(store).value();
  }
  std::string OpenError() {
    store_.reset();
    const auto store = StateStore::Open(dir_->path());
    return store.ok() ? "" : store.error().message;
  }
  StoredState Load() {
    auto state = store_->Load();
    EXPECT_TRUE(state.ok());
    return std::move(state).value();
  }
  uint64_t Deploy(const std::string& name, uint32_t keep = 10, uint32_t number = 0) {
    StoredVersion version;
    version.spec_json = "{}";
    version.image_digest = Digest('a');
    version.number = number;
    const auto pending = store_->AddPending({"admin", "ns", name}, version);
    EXPECT_TRUE(pending.ok()) << pending.error().message;
    EXPECT_TRUE(store_->Activate(pending->id, keep).ok());
    return pending->id;
  }
  void Raw(const std::string& sql) {
    store_.reset();
    auto database = Database::Open(Path());
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE((*database)->Execute(sql).ok());
  }
  std::string Path() const { return dir_->path() + "/pulga.db"; }

  std::unique_ptr<TempDir> dir_;
  std::unique_ptr<StateStore> store_;
};

TEST_F(StateStoreTest, KeepsImagesOverAReopen) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1, 2}, {"r1", "r2"})}, 5).ok());
  Open();
  const StoredState state = Load();
  ASSERT_THAT(state.images, SizeIs(1));
  const ImageRecord& image = state.images[0];
  const ImageRecord expected = Image('a', {1, 2}, {"r1", "r2"});
  EXPECT_EQ(image.digest, expected.digest);
  EXPECT_EQ(image.refs, expected.refs);
  EXPECT_EQ(image.platform, expected.platform);
  EXPECT_EQ(image.config.entrypoint, expected.config.entrypoint);
  EXPECT_EQ(image.config.labels, expected.config.labels);
  EXPECT_EQ(image.config_json, "") << "it is nobody's but an export's";
  EXPECT_EQ(image.config_bytes, expected.config_json.size());
  EXPECT_EQ(store_->ConfigOf({kDefaultOwner, image.digest}).value(), expected.config_json);
  EXPECT_EQ(store_->ConfigOf({kDefaultOwner, Digest('x')}).error().code, Code::kNotFound);
  ASSERT_THAT(image.layers, SizeIs(2));
  EXPECT_EQ(image.layers[1].chain_id, Layer(2));
  EXPECT_EQ(image.layers[1].size_bytes, 20U);
}

TEST_F(StateStoreTest, FilesAreReadableByTheirOwnerOnly) {
  struct stat st = {};
  ASSERT_EQ(stat(Path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST_F(StateStoreTest, MovesANameToTheNewerImage) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {"r"})}, 1).ok());
  ASSERT_TRUE(store_->StoreImages({Image('b', {2}, {"r"})}, 2).ok());
  const StoredState state = Load();
  ASSERT_THAT(state.images, SizeIs(2));
  EXPECT_THAT(state.images[0].refs, IsEmpty());
  EXPECT_THAT(state.images[1].refs, ElementsAre("r"));
}

TEST_F(StateStoreTest, StoringTheSameImageTwiceChangesNothing) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1, 2}, {"r"})}, 1).ok());
  ASSERT_TRUE(store_->StoreImages({Image('a', {1, 2}, {"r"})}, 2).ok());
  const StoredState state = Load();
  ASSERT_THAT(state.images, SizeIs(1));
  EXPECT_THAT(state.images[0].layers, SizeIs(2));
}

TEST_F(StateStoreTest, RemovingAnImageReturnsOnlyLayersNobodyElseHas) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1, 2}, {}), Image('b', {1, 3}, {})}, 1).ok());
  const auto unused = store_->RemoveImages({{kDefaultOwner, Digest('a')}});
  ASSERT_TRUE(unused.ok());
  EXPECT_THAT(*unused, ElementsAre(Layer(2)));
  EXPECT_THAT(Load().images, SizeIs(1));
}

TEST_F(StateStoreTest, AnotherOwnersImageOfTheSameNameStays) {
  ImageRecord other = Image('a', {2}, {"r"});
  other.owner = "other";
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {"r"}), other}, 1).ok());
  ASSERT_TRUE(store_->RemoveRef({kDefaultOwner, "r"}).ok());
  for (const ImageRecord& image : Load().images) {
    EXPECT_EQ(image.refs.size(), image.owner == "other" ? 1u : 0u);
  }
  EXPECT_THAT(store_->RemoveImages({{kDefaultOwner, Digest('a')}}).value(), ElementsAre(Layer(1)));
  const StoredState state = Load();
  ASSERT_THAT(state.images, SizeIs(1));
  EXPECT_EQ(state.images[0].owner, "other");
  EXPECT_THAT(state.images[0].refs, ElementsAre("r"));
}

TEST_F(StateStoreTest, AnImageInUseStays) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {"r"})}, 1).ok());
  Deploy("f");
  const auto removed = store_->RemoveImages({{kDefaultOwner, Digest('a')}});
  ASSERT_FALSE(removed.ok());
  EXPECT_EQ(removed.error().code, Code::kAlreadyExists);
  EXPECT_THAT(Load().images[0].refs, ElementsAre("r"));
}

TEST_F(StateStoreTest, NumbersVersionsPerFunctionAndIdsOverAll) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  const uint64_t f1 = Deploy("f");
  const uint64_t g1 = Deploy("g");
  const uint64_t f2 = Deploy("f");
  EXPECT_LT(f1, g1);
  EXPECT_LT(g1, f2);
  const StoredState state = Load();
  ASSERT_THAT(state.functions, SizeIs(2));
  ASSERT_THAT(state.functions[0].versions, SizeIs(2));
  EXPECT_EQ(state.functions[0].versions[0].number, 2U);
  EXPECT_EQ(state.functions[0].versions[0].state, StoredVersion::State::kActive);
  EXPECT_EQ(state.functions[0].versions[1].state, StoredVersion::State::kKept);
}

TEST_F(StateStoreTest, APendingVersionDoesNotSurviveARestart) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  Deploy("old");
  for (const char* name : {"old", "new"}) {
    StoredVersion version;
    version.spec_json = "{}";
    version.image_digest = Digest('a');
    ASSERT_TRUE(store_->AddPending({"admin", "ns", name}, version).ok());
  }
  Open();
  const StoredState state = Load();
  ASSERT_THAT(state.functions, SizeIs(1));
  EXPECT_EQ(state.functions[0].key.name, "old");
  EXPECT_THAT(state.functions[0].versions, SizeIs(1));
}

TEST_F(StateStoreTest, ADroppedPendingVersionLeavesNoFunction) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  StoredVersion version;
  version.spec_json = "{}";
  version.image_digest = Digest('a');
  const auto pending = store_->AddPending({"admin", "ns", "f"}, version);
  ASSERT_TRUE(pending.ok());
  ASSERT_TRUE(store_->DropPending(pending->id).ok());
  EXPECT_TRUE(store_->RemoveImages({{kDefaultOwner, Digest('a')}}).ok());
}

TEST_F(StateStoreTest, ForgetsAllButTheNewestVersions) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  for (int i = 0; i < 5; ++i) Deploy("f", 3);
  const StoredState state = Load();
  ASSERT_THAT(state.functions[0].versions, SizeIs(3));
  EXPECT_EQ(state.functions[0].versions[2].number, 3U);
}

TEST_F(StateStoreTest, AnOldVersionComesBackUnderItsNumberWithANewId) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  const uint64_t first = Deploy("f");
  Deploy("f");
  const uint64_t again = Deploy("f", 10, 1);
  EXPECT_NE(first, again);
  const auto versions = Load().functions[0].versions;
  ASSERT_THAT(versions, SizeIs(2));
  EXPECT_EQ(versions[1].number, 1U);
  EXPECT_EQ(versions[1].state, StoredVersion::State::kActive);
  EXPECT_EQ(versions[0].state, StoredVersion::State::kKept);
}

TEST_F(StateStoreTest, IdsAreNotUsedAgainAfterADeletion) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  const uint64_t first = Deploy("f");
  ASSERT_TRUE(store_->DeleteFunction({"admin", "ns", "f"}).ok());
  EXPECT_FALSE(store_->DeleteFunction({"admin", "ns", "f"}).ok());
  Open();
  EXPECT_GT(Deploy("f"), first);
}

TEST_F(StateStoreTest, FunctionsAreKeyedByOwnerNamespaceAndName) {
  std::vector<ImageRecord> images = {Image('a', {1}, {}), Image('a', {2}, {})};
  images[0].owner = "a";
  images[1].owner = "b";
  ASSERT_TRUE(store_->StoreImages(images, 1).ok());
  StoredVersion version;
  version.spec_json = "{}";
  version.image_digest = Digest('a');
  for (const FunctionKey& key :
       {FunctionKey{"a", "n", "f"}, FunctionKey{"b", "n", "f"}, FunctionKey{"a", "m", "f"}}) {
    const auto pending = store_->AddPending(key, version);
    ASSERT_TRUE(pending.ok());
    ASSERT_TRUE(store_->Activate(pending->id, 10).ok());
  }
  EXPECT_THAT(Load().functions, SizeIs(3));
}

TEST_F(StateStoreTest, AnImageServesOnlyItsOwnersFunctions) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {"same:1"})}, 1).ok());
  ImageRecord theirs = Image('b', {2}, {"same:1"});
  theirs.owner = "them";
  ASSERT_TRUE(store_->StoreImages({theirs}, 1).ok());
  const auto images = Load().images;
  ASSERT_THAT(images, SizeIs(2));
  EXPECT_THAT(images[0].refs, ElementsAre("same:1"));
  EXPECT_THAT(images[1].refs, ElementsAre("same:1"));
  StoredVersion version;
  version.spec_json = "{}";
  version.image_digest = Digest('b');
  EXPECT_FALSE(store_->AddPending({"admin", "n", "f"}, version).ok());
  EXPECT_TRUE(store_->AddPending({"them", "n", "f"}, version).ok());
}

TEST_F(StateStoreTest, ACleanCloseLeavesNoLogBehindAndACrashIsCheckedAndKept) {
  ASSERT_TRUE(store_->StoreImages({Image('a', {1}, {})}, 1).ok());
  // A crash: the files as they are while the store is open.
  auto crash = TempDir::Create("/tmp/pulga-state-");
  ASSERT_TRUE(crash.ok());
  for (const char* name : {"/pulga.db", "/pulga.db-wal"}) {
    const auto bytes = ReadFile(dir_->path() + name, 16 << 20);
    ASSERT_TRUE(bytes.ok());
    ASSERT_TRUE(WriteFile(crash->path() + name, *bytes).ok());
  }
  store_.reset();
  EXPECT_NE(access((Path() + "-wal").c_str(), F_OK), 0);
  auto recovered = StateStore::Open(crash->path());
  ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  EXPECT_THAT((*recovered)->Load()->images, SizeIs(1));
}

TEST_F(StateStoreTest, RefusesADamagedFileAndLeavesItAlone) {
  for (uint8_t n = 1; n < 60; ++n) {
    ASSERT_TRUE(store_->StoreImages({Image('a', {n}, {"r" + std::to_string(n)})}, 1).ok());
  }
  store_.reset();
  const std::string sound = ReadFile(Path(), 16 << 20).value();
  for (const size_t offset :
       {size_t{0}, size_t{100}, size_t{4096 + 3}, sound.size() / 8192 * 4096}) {
    std::string damaged = sound;
    for (size_t i = 0; i < 64; ++i) damaged[offset + i] = static_cast<char>(~damaged[offset + i]);
    ASSERT_TRUE(WriteFile(Path(), damaged).ok());
    EXPECT_THAT(OpenError(), HasSubstr("restore")) << offset;
    EXPECT_EQ(ReadFile(Path(), 16 << 20).value(), damaged) << offset;
  }
  ASSERT_TRUE(WriteFile(Path(), sound.substr(0, sound.size() / 2)).ok());
  EXPECT_THAT(OpenError(), HasSubstr("is damaged"));
}

TEST_F(StateStoreTest, RefusesToStartEmptyWhereItWasUsedBefore) {
  store_.reset();
  ASSERT_TRUE(WriteFile(dir_->path() + "/admin.key", "x").ok());
  ASSERT_TRUE(WriteFile(Path(), "").ok());
  EXPECT_THAT(OpenError(), HasSubstr("is empty, although"));
  ASSERT_EQ(unlink(Path().c_str()), 0);
  EXPECT_THAT(OpenError(), HasSubstr("is missing, although"));
  EXPECT_NE(access(Path().c_str(), F_OK), 0);
}

TEST_F(StateStoreTest, StartsWhereAFirstStartWasCutShort) {
  store_.reset();
  ASSERT_TRUE(WriteFile(Path(), "").ok());
  EXPECT_EQ(OpenError(), "");
}

TEST_F(StateStoreTest, OneOfTwoThatCreateANamespaceAtOnceIsRefused) {
  auto loop = std::move(EventLoop::Create()).value();
  const FunctionRegistry registry;
  std::vector<Status> told;
  WorkQueue storage("pulga-storage", *loop);
  const SystemClock clock;
  const SecretService secrets({*loop, clock, storage, *store_, dir_->path(), {}});
  NamespaceService service({storage, *store_, registry, secrets});
  const NamespaceRecord dev{kDefaultOwner, "dev", {}, {}};
  const auto note = [&told](Status status) { told.push_back(std::move(status)); };
  service.Put(dev, Namespaces::Write::kCreate, note);
  service.Put(dev, Namespaces::Write::kCreate, note);
  for (int turn = 0; turn < 6000 && told.size() < 2; ++turn) {
    loop->RunOnce(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(told.size(), 2U);
  ASSERT_FALSE(told[0].ok()) << "the refusal comes at once";
  EXPECT_EQ(told[0].error().code, Code::kAlreadyExists);
  EXPECT_TRUE(told[1].ok());
  EXPECT_TRUE(service.Find("dev").ok());
}

TEST_F(StateStoreTest, KeepsNamespacesWithWhatIsAttachedToThem) {
  const NamespaceRecord dev{kDefaultOwner, "dev", {{"openfaas", "1"}}, {{"note", "\"\n"}}};
  ASSERT_TRUE(store_->PutNamespace(dev).ok());
  ASSERT_TRUE(store_->PutNamespace({kDefaultOwner, "test", {}, {}}).ok());
  ASSERT_TRUE(store_->PutNamespace({kDefaultOwner, "test", {{"a", "b"}}, {}}).ok());
  Open();
  auto state = store_->Load();
  ASSERT_TRUE(state.ok());
  ASSERT_EQ(state->namespaces.size(), 2U);
  EXPECT_EQ(state->namespaces[0].labels, dev.labels);
  EXPECT_EQ(state->namespaces[0].annotations, dev.annotations);
  EXPECT_EQ(state->namespaces[1].labels.at("a"), "b");
  ASSERT_TRUE(store_->DeleteNamespace(dev).ok());
  state = store_->Load();
  EXPECT_EQ(state->namespaces.size(), 1U);
}

TEST_F(StateStoreTest, RefusesANewerSchema) {
  Raw("PRAGMA user_version = 99");
  EXPECT_THAT(OpenError(), HasSubstr("newer Pulga (schema 99, this one knows up to " +
                                     std::to_string(StateMigrations().size()) + ")"));
}

TEST_F(StateStoreTest, RefusesSomebodyElsesDatabase) {
  Raw("PRAGMA application_id = 7");
  EXPECT_THAT(OpenError(), HasSubstr("not one of Pulga's"));
  Raw("PRAGMA application_id = 0");
  EXPECT_THAT(OpenError(), HasSubstr("not one of Pulga's"));
}

// A database as the first release left it.
constexpr const char* kOldRows = R"sql(
INSERT INTO images VALUES ('sha256:a', 'linux', 'amd64', '', 30, '{}', '{"x":1}', 1000);
INSERT INTO images VALUES ('sha256:b', 'linux', 'arm', 'v7', 10, '{}', '{}', 2000);
INSERT INTO refs VALUES ('docker.io/library/a:1', 'sha256:a');
INSERT INTO layers VALUES
  ('1111111111111111111111111111111111111111111111111111111111111111', 'd1', 10),
  ('2222222222222222222222222222222222222222222222222222222222222222', 'd2', 20);
INSERT INTO image_layers VALUES
  ('sha256:a', 0, '1111111111111111111111111111111111111111111111111111111111111111'),
  ('sha256:a', 1, '2222222222222222222222222222222222222222222222222222222222222222'),
  ('sha256:b', 0, '1111111111111111111111111111111111111111111111111111111111111111');
INSERT INTO functions VALUES (7, 'admin', 'openfaas-fn', 'f');
INSERT INTO versions VALUES (41, 7, 1, 'kept', '{}', 'sha256:b', 1),
  (42, 7, 2, 'active', '{"s":2}', 'sha256:a', 2), (99, 7, 3, 'kept', '{}', 'sha256:b', 3);
DELETE FROM versions WHERE id = 99;
)sql";

TEST_F(StateStoreTest, TakesOverADatabaseOfTheFirstSchemaWithEverythingInIt) {
  store_.reset();
  ASSERT_EQ(unlink(Path().c_str()), 0);
  {
    auto old = Database::Open(Path());
    ASSERT_TRUE(old.ok());
    ASSERT_TRUE(Migrate(**old, StateMigrations().first(1)).ok());
    ASSERT_TRUE((*old)->Execute(kOldRows).ok());
  }
  Open();
  const StoredState state = Load();
  ASSERT_THAT(state.images, SizeIs(2));
  EXPECT_EQ(state.images[0].owner, kDefaultOwner);
  EXPECT_EQ(state.images[0].last_used_unix_ms, 1000);
  EXPECT_EQ(state.images[0].config_bytes, 7u);
  EXPECT_THAT(state.images[0].refs, ElementsAre("docker.io/library/a:1"));
  ASSERT_THAT(state.images[0].layers, SizeIs(2));
  EXPECT_EQ(state.images[0].layers[1].size_bytes, 20u);
  EXPECT_EQ(state.images[0].layers[1].record_bytes, 0u);
  EXPECT_EQ(state.images[1].platform.variant, "v7");
  ASSERT_THAT(state.functions, SizeIs(1));
  ASSERT_THAT(state.functions[0].versions, SizeIs(2));
  EXPECT_EQ(state.functions[0].versions[0].id, 42u);
  EXPECT_EQ(state.functions[0].versions[0].spec_json, "{\"s\":2}");
  // Still guarded, still counting where it was.
  EXPECT_EQ(store_->RemoveImages({{kDefaultOwner, "sha256:a"}}).error().code, Code::kAlreadyExists);
  StoredVersion version;
  version.spec_json = "{}";
  version.image_digest = "sha256:a";
  EXPECT_EQ(store_->AddPending({"admin", "openfaas-fn", "f"}, version)->id, 100u);
}

TEST_F(StateStoreTest, AMigrationThatBreaksReferencesIsNotKept) {
  store_.reset();
  auto db = Database::Open(Path());
  ASSERT_TRUE(db.ok());
  std::vector<const char*> more(StateMigrations().begin(), StateMigrations().end());
  more.push_back("INSERT INTO refs VALUES ('admin', 'x', 'sha256:nobody')");
  const Status migrated = Migrate(**db, more);
  ASSERT_FALSE(migrated.ok());
  EXPECT_THAT(migrated.error().message, HasSubstr("refer to rows that are not there"));
  EXPECT_EQ((*db)->QueryInt("SELECT count(*) FROM refs").value(), 0);
}

TEST(StateSchema, MigratesStepByStepAndAFailedStepLeavesTheOldSchema) {
  auto dir = TempDir::Create("/tmp/pulga-state-");
  ASSERT_TRUE(dir.ok());
  auto database = Database::Open(dir->path() + "/pulga.db");
  ASSERT_TRUE(database.ok());
  Database& db = **database;
  const char* const one[] = {"CREATE TABLE a (x)"};
  ASSERT_TRUE(Migrate(db, one).ok());
  const char* const broken[] = {one[0], "CREATE TABLE b (x); CREATE TABLE a (x)"};
  const Status failed = Migrate(db, broken);
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("migrate to schema 2"));
  EXPECT_EQ(db.QueryInt("PRAGMA user_version").value(), 1);
  EXPECT_EQ(db.QueryInt("SELECT count(*) FROM sqlite_schema").value(), 1);
  const char* const two[] = {one[0], "CREATE TABLE b (x)"};
  EXPECT_TRUE(Migrate(db, two).ok());
  EXPECT_EQ(db.QueryInt("PRAGMA user_version").value(), 2);
}

}  // namespace
}  // namespace pulga
