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

// Images, their names and their layers belong to an owner; layers know what they take on disk, and
// what their tar and their record weigh. Parents of foreign keys are rebuilt, so everything that
// refers to them is, with the highest version id kept.
constexpr const char* kSchema2 = R"sql(
CREATE TABLE new_images (
  owner TEXT NOT NULL,
  digest TEXT NOT NULL,
  os TEXT NOT NULL,
  architecture TEXT NOT NULL,
  variant TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  config TEXT NOT NULL,
  config_json TEXT NOT NULL,
  created_unix_ms INTEGER NOT NULL,
  last_used_unix_ms INTEGER NOT NULL,
  PRIMARY KEY (owner, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO new_images SELECT 'admin', digest, os, architecture, variant, size_bytes, config,
  config_json, created_unix_ms, created_unix_ms FROM images;

CREATE TABLE new_refs (
  owner TEXT NOT NULL,
  ref TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (owner, ref),
  FOREIGN KEY (owner, digest) REFERENCES images(owner, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO new_refs SELECT 'admin', ref, digest FROM refs;

CREATE TABLE new_layers (
  chain_id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  diff_id TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  stream_bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL,
  record_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO new_layers SELECT chain_id, 'admin', diff_id, size_bytes, 0, 0, 0 FROM layers;

CREATE TABLE new_image_layers (
  owner TEXT NOT NULL,
  digest TEXT NOT NULL,
  position INTEGER NOT NULL,
  chain_id TEXT NOT NULL REFERENCES layers(chain_id),
  PRIMARY KEY (owner, digest, position),
  FOREIGN KEY (owner, digest) REFERENCES images(owner, digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO new_image_layers SELECT 'admin', digest, position, chain_id FROM image_layers;

CREATE TABLE new_versions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  function_id INTEGER NOT NULL REFERENCES functions(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'kept')),
  spec TEXT NOT NULL,
  image_owner TEXT NOT NULL,
  image_digest TEXT NOT NULL,
  created_unix_ms INTEGER NOT NULL,
  FOREIGN KEY (image_owner, image_digest) REFERENCES images(owner, digest)
) STRICT;
INSERT INTO new_versions SELECT id, function_id, number, state, spec, 'admin', image_digest,
  created_unix_ms FROM versions;
DELETE FROM sqlite_sequence WHERE name = 'new_versions';
INSERT INTO sqlite_sequence (name, seq)
  SELECT 'new_versions', seq FROM sqlite_sequence WHERE name = 'versions';

DROP TABLE versions;
DROP TABLE image_layers;
DROP TABLE refs;
DROP TABLE layers;
DROP TABLE images;
ALTER TABLE new_images RENAME TO images;
ALTER TABLE new_refs RENAME TO refs;
ALTER TABLE new_layers RENAME TO layers;
ALTER TABLE new_image_layers RENAME TO image_layers;
ALTER TABLE new_versions RENAME TO versions;
CREATE INDEX refs_by_digest ON refs(owner, digest);
CREATE INDEX image_layers_by_chain ON image_layers(chain_id);
CREATE UNIQUE INDEX one_active_version ON versions(function_id) WHERE state = 'active';
CREATE UNIQUE INDEX one_stored_number ON versions(function_id, number) WHERE state <> 'pending';
CREATE INDEX versions_by_image ON versions(image_owner, image_digest);
)sql";

// Volumes have random ids, so that one made after an older database was restored never meets the
// file of another. A name is free again as soon as its volume is on its way out.
constexpr const char* kSchema3 = R"sql(
CREATE TABLE volumes (
  id INTEGER PRIMARY KEY,
  owner TEXT NOT NULL,
  name_space TEXT NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'ready', 'removing')),
  size_bytes INTEGER NOT NULL,
  image_owner TEXT,
  image_digest TEXT,
  created_unix_ms INTEGER NOT NULL,
  FOREIGN KEY (image_owner, image_digest) REFERENCES images(owner, digest)
) STRICT;
CREATE UNIQUE INDEX one_volume_of_a_name ON volumes(owner, name_space, name)
  WHERE state <> 'removing';
CREATE INDEX volumes_by_image ON volumes(image_owner, image_digest);
)sql";

// What was learned, and who was called when (in hours since 1970): clustered by the hour, so that
// what is written every few minutes, for however many functions, is on few pages. No index by
// function, which only a deletion would use and each write would pay for.
constexpr const char* kSchema4 = R"sql(
CREATE TABLE habits (
  function_id INTEGER PRIMARY KEY REFERENCES functions(id) ON DELETE CASCADE,
  pauses TEXT NOT NULL,
  costs TEXT NOT NULL,
  calls_lately_milli INTEGER NOT NULL,
  idle_since_unix_ms INTEGER NOT NULL,
  saved_unix_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE call_hours (
  hour INTEGER NOT NULL,
  function_id INTEGER NOT NULL REFERENCES functions(id) ON DELETE CASCADE,
  minutes TEXT NOT NULL,
  PRIMARY KEY (hour, function_id)
) STRICT, WITHOUT ROWID;
)sql";

// What instances are allowed where a limit is a range; 0: nothing was learned.
constexpr const char* kSchema5 = R"sql(
ALTER TABLE habits ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE habits ADD COLUMN cpu_millis INTEGER NOT NULL DEFAULT 0;
)sql";

// What OpenFaaS' clients attach to namespaces, as JSON. The default one needs no row.
constexpr const char* kSchema6 = R"sql(
CREATE TABLE namespaces (
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  labels TEXT NOT NULL,
  annotations TEXT NOT NULL,
  PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;
)sql";

// Values are sealed by runtime/secrets; the row says with which key, so that keys can be changed.
constexpr const char* kSchema7 = R"sql(
CREATE TABLE secrets (
  owner TEXT NOT NULL,
  name_space TEXT NOT NULL,
  name TEXT NOT NULL,
  key_id TEXT NOT NULL,
  nonce BLOB NOT NULL,
  sealed BLOB NOT NULL,
  size_bytes INTEGER NOT NULL,
  created_unix_ms INTEGER NOT NULL,
  changed_unix_ms INTEGER NOT NULL,
  PRIMARY KEY (owner, name_space, name)
) STRICT;
)sql";

// The administrator of before is the first user. Of a key the hash of its secret half alone is
// kept.
constexpr const char* kSchema8 = R"sql(
CREATE TABLE users (
  name TEXT PRIMARY KEY,
  role TEXT NOT NULL CHECK (role IN ('administrator', 'standard', 'limited')),
  disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
  created_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO users VALUES ('admin', 'administrator', 0, unixepoch() * 1000);
CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  user_name TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE,
  label TEXT NOT NULL,
  scopes INTEGER NOT NULL,
  secret_sha256 TEXT NOT NULL,
  created_unix_ms INTEGER NOT NULL,
  expires_unix_ms INTEGER NOT NULL,
  last_used_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_by_user ON api_keys(user_name);
)sql";

// Passwords as crypt(5) writes them, "" for none; keys that a sign-in made.
constexpr const char* kSchema9 = R"sql(
ALTER TABLE users ADD COLUMN password_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN session INTEGER NOT NULL DEFAULT 0 CHECK (session IN (0, 1));
)sql";

constexpr const char* kMigrations[] = {kSchema1, kSchema2, kSchema3, kSchema4, kSchema5,
                                       kSchema6, kSchema7, kSchema8, kSchema9};

Status CheckOwnership(Database& database) {
  PULGA_ASSIGN_OR_RETURN(const int64_t id, database.QueryInt("PRAGMA application_id"));
  if (id == kApplicationId) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const int64_t tables,
                         database.QueryInt("SELECT count(*) FROM sqlite_schema"));
  if (id == 0 && tables == 0) return OkStatus();
  return Error{Code::kUnsupported, 0, "this is a database, but not one of Pulga's"};
}

Status CheckReferences(Database& database) {
  PULGA_ASSIGN_OR_RETURN(const int64_t broken,
                         database.QueryInt("SELECT count(*) FROM pragma_foreign_key_check"));
  if (broken == 0) return OkStatus();
  return Error{Code::kIo, 0, std::to_string(broken) + " rows refer to rows that are not there"};
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
    if (done.ok()) done = CheckReferences(database);
    if (done.ok()) done = transaction.Commit();
    if (!done.ok()) return Prefix(step, done.error());
  }
  return OkStatus();
}

}  // namespace pulga
