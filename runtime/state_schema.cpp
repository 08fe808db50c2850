#include "runtime/state_schema.h"

#include <string>

namespace pulga {
namespace {

// Functions are keyed by owner and namespace from the first day. An image's row is what makes it
// exist; layers are shared. AUTOINCREMENT: a version's id is never used again.
constexpr const char* kSchema1 = R"sql(
CREATE TABLE images (
  digest TEXT PRIMARY KEY,
  os TEXT NOT NULL,
  architecture TEXT NOT NULL,
  variant TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  config TEXT NOT NULL,
  config_json TEXT NOT NULL,
  created_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE refs (
  ref TEXT PRIMARY KEY,
  digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX refs_by_digest ON refs(digest);

CREATE TABLE layers (
  chain_id TEXT PRIMARY KEY,
  diff_id TEXT NOT NULL,
  size_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE image_layers (
  digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  chain_id TEXT NOT NULL REFERENCES layers(chain_id),
  PRIMARY KEY (digest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_chain ON image_layers(chain_id);

CREATE TABLE functions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL,
  name_space TEXT NOT NULL,
  name TEXT NOT NULL,
  UNIQUE (owner, name_space, name)
) STRICT;

CREATE TABLE versions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  function_id INTEGER NOT NULL REFERENCES functions(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'kept')),
  spec TEXT NOT NULL,
  image_digest TEXT NOT NULL REFERENCES images(digest),
  created_unix_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_active_version ON versions(function_id) WHERE state = 'active';
CREATE UNIQUE INDEX one_stored_number ON versions(function_id, number) WHERE state <> 'pending';
CREATE INDEX versions_by_image ON versions(image_digest);

CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
)sql";

constexpr const char* kMigrations[] = {kSchema1};

Status CheckOwnership(Database& database) {
  PULGA_ASSIGN_OR_RETURN(const int64_t id, database.QueryInt("PRAGMA application_id"));
  if (id == kApplicationId) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const int64_t tables,
                         database.QueryInt("SELECT count(*) FROM sqlite_schema"));
  if (id == 0 && tables == 0) return OkStatus();
  return Error{Code::kUnsupported, 0, "this is a database, but not one of Pulga's"};
}

}  // namespace

std::span<const char* const> StateMigrations() { return kMigrations; }

Status Migrate(Database& database, std::span<const char* const> migrations) {
  PULGA_RETURN_IF_ERROR(CheckOwnership(database));
  const auto newest = static_cast<int64_t>(migrations.size());
  PULGA_ASSIGN_OR_RETURN(int64_t version, database.QueryInt("PRAGMA user_version"));
  if (version < 0 || version > newest) {
    return Error{Code::kUnsupported, 0,
                 "written by a newer Pulga (schema " + std::to_string(version) +
                     ", this one knows up to " + std::to_string(newest) +
                     "): start the newer Pulga again, or restore a backup made before the upgrade"};
  }
  for (; version < newest; ++version) {
    const std::string step = "migrate to schema " + std::to_string(version + 1);
    PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
    Status done = database.Execute(migrations[static_cast<size_t>(version)]);
    if (done.ok()) {
      done = database.Execute("PRAGMA application_id = " + std::to_string(kApplicationId) +
                              "; PRAGMA user_version = " + std::to_string(version + 1));
    }
    if (done.ok()) done = transaction.Commit();
    if (!done.ok()) return Prefix(step, done.error());
  }
  return OkStatus();
}

}  // namespace pulga
