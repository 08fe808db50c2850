#include "runtime/state_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/text.h"
#include "runtime/image_json.h"
#include "runtime/sound_database.h"
#include "runtime/state_schema.h"

namespace pulga {
namespace {

constexpr const char* kFile = "pulga.db";
constexpr const char* kDropUnneededLayers =
    "DELETE FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)"
    " RETURNING chain_id";
constexpr const char* kRestoreAdvice =
    " Nothing was changed. Keep a copy of the directory; then restore pulga.db from a backup, or, "
    "to start empty, move pulga.db* and admin.key away and import and deploy again.";

std::optional<off_t> FileSize(const std::string& path) {
  struct stat st = {};
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  return st.st_size;
}

Error Refusal(Code code, const std::string& why) {
  return Error{code, 0, std::string(kFile) + ": " + why + kRestoreAdvice};
}

// An empty database in a directory that was used before would have the sweep delete every layer.
Status CheckPresent(const std::string& data_dir) {
  const auto size = FileSize(data_dir + "/" + kFile);
  if (size && *size > 0) return OkStatus();
  if (!FileSize(data_dir + "/admin.key")) return OkStatus();
  return Refusal(Code::kNotFound, size ? "is empty, although this directory was used before."
                                       : "is missing, although this directory was used before.");
}

Result<std::vector<std::string>> TextsOf(Statement& statement) {
  std::vector<std::string> texts;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return texts;
    texts.push_back(statement.TextAt(0));
  }
}

StoredVersion::State StateOf(const std::string& text) {
  return text == "active" ? StoredVersion::State::kActive : StoredVersion::State::kKept;
}

// Of the code's other reasons, descriptors and memory, no file that goes gives any back.
bool IsDiskFull(const Error& error) {
  if (error.code != Code::kNoSpace) return false;
  const int why = error.sys_errno;
  return why != EMFILE && why != ENFILE && why != ENOMEM;
}

}  // namespace

Result<std::unique_ptr<StateStore>> StateStore::Open(const std::string& data_dir) {
  auto store = OpenOnce(data_dir);
  if (!store.ok() && IsDiskFull(store.error()) && Ballast(data_dir).Drop()) {
    store = OpenOnce(data_dir);
  }
  if (store.ok()) {
    (*store)->KeepBallast();
  } else if (IsDiskFull(store.error())) {
    Error full = store.error();
    full.message += ": the disk is full: free some space where the data directory is";
    return full;
  }
  return store;
}

Result<std::unique_ptr<StateStore>> StateStore::OpenCopy(const std::string& dir) {
  if (FileSize(dir + "/" + kFile).value_or(0) == 0) return Refusal(Code::kNotFound, "is empty.");
  return OpenOnce(dir);
}

Result<std::unique_ptr<StateStore>> StateStore::OpenOnce(const std::string& data_dir) {
  PULGA_RETURN_IF_ERROR(CheckPresent(data_dir));
  PULGA_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                         OpenSound({data_dir, kFile, StateMigrations(), kRestoreAdvice}));
  return std::unique_ptr<StateStore>(new StateStore(std::move(database), data_dir));
}

Status StateStore::RunOwned(const char* sql, const OwnedImage& image) {
  PULGA_ASSIGN_OR_RETURN(Statement* const statement, Prepared(sql));
  return statement->Text(image.owner).Text(image.name).Run();
}

Status StateStore::RunInt(const char* sql, uint64_t parameter) {
  PULGA_ASSIGN_OR_RETURN(Statement* const statement, Prepared(sql));
  return statement->Int(static_cast<int64_t>(parameter)).Run();
}

Result<StoredState> StateStore::Load() {
  return Freeing([this]() -> Result<StoredState> {
    PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
    PULGA_RETURN_IF_ERROR(
        database_->Execute("DELETE FROM versions WHERE state = 'pending';"
                           "DELETE FROM functions WHERE id NOT IN"
                           " (SELECT function_id FROM versions WHERE state = 'active')"));
    PULGA_ASSIGN_OR_RETURN(Statement* const unneeded, Prepared(kDropUnneededLayers));
    PULGA_ASSIGN_OR_RETURN(const auto dropped, TextsOf(*unneeded));
    if (!dropped.empty())
      LogWarning(std::to_string(dropped.size()) + " layers belonged to no image");
    StoredState state;
    PULGA_RETURN_IF_ERROR(LoadImages(state));
    PULGA_RETURN_IF_ERROR(LoadFunctions(state));
    PULGA_RETURN_IF_ERROR(LoadVolumes(state));
    PULGA_RETURN_IF_ERROR(LoadSecrets(state));
    PULGA_RETURN_IF_ERROR(LoadHabits(state));
    PULGA_RETURN_IF_ERROR(LoadNamespaces(state));
    PULGA_RETURN_IF_ERROR(LoadAccounts(state));
    PULGA_RETURN_IF_ERROR(transaction.Commit());
    return state;
  });
}

Status StateStore::LoadImages(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(Statement* const images,
                         Prepared("SELECT digest, os, architecture, variant, size_bytes, config,"
                                  " length(CAST(config_json AS BLOB)), owner, last_used_unix_ms"
                                  " FROM images"
                                  " ORDER BY created_unix_ms, digest"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, images->Step());
    if (!row) break;
    ImageRecord image;
    image.digest = images->TextAt(0);
    image.platform = {images->TextAt(1), images->TextAt(2), images->TextAt(3)};
    image.size_bytes = static_cast<uint64_t>(images->IntAt(4));
    PULGA_ASSIGN_OR_RETURN(image.config, ImageConfigFromJson(images->TextAt(5)));
    image.config_bytes = static_cast<uint64_t>(images->IntAt(6));
    image.owner = images->TextAt(7);
    image.last_used_unix_ms = images->IntAt(8);
    state.images.push_back(std::move(image));
  }
  for (ImageRecord& image : state.images) {
    PULGA_ASSIGN_OR_RETURN(image.refs, NamesOf(image));
    PULGA_ASSIGN_OR_RETURN(
        Statement* const layers,
        Prepared("SELECT chain_id, diff_id, size_bytes, stream_bytes, disk_bytes, record_bytes"
                 " FROM image_layers JOIN layers USING (chain_id)"
                 " WHERE image_layers.owner = ? AND digest = ? ORDER BY position"));
    layers->Text(image.owner).Text(image.digest);
    while (true) {
      PULGA_ASSIGN_OR_RETURN(const bool row, layers->Step());
      if (!row) break;
      const auto chain_id = LayerId::FromHex(layers->TextAt(0));
      if (!chain_id) return Refusal(Code::kIo, "is damaged: a layer's id is no id.");
      LayerRecord layer;
      layer.chain_id = *chain_id;
      layer.diff_id = layers->TextAt(1);
      layer.size_bytes = static_cast<uint64_t>(layers->IntAt(2));
      layer.stream_bytes = static_cast<uint64_t>(layers->IntAt(3));
      layer.disk_bytes = static_cast<uint64_t>(layers->IntAt(4));
      layer.record_bytes = static_cast<uint64_t>(layers->IntAt(5));
      image.layers.push_back(std::move(layer));
    }
  }
  return OkStatus();
}

Result<std::vector<std::string>> StateStore::NamesOf(const ImageRecord& image) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const names,
      Prepared("SELECT ref FROM refs WHERE owner = ? AND digest = ? ORDER BY ref"));
  names->Text(image.owner).Text(image.digest);
  return TextsOf(*names);
}

Result<std::string> StateStore::ConfigOf(const OwnedImage& digest) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("SELECT config_json FROM images WHERE owner = ? AND digest = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool found, row->Text(digest.owner).Text(digest.name).Step());
  if (!found) return Error{Code::kNotFound, 0, "image " + digest.name + " has no row"};
  std::string config = row->TextAt(0);
  row->Reset();
  return config;
}

Status StateStore::LoadFunctions(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT owner, name_space, name, versions.id, number, state, spec, image_digest,"
               " created_unix_ms FROM versions JOIN functions ON functions.id = function_id"
               " ORDER BY owner, name_space, name, number DESC"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    FunctionKey key{rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)};
    if (state.functions.empty() || state.functions.back().key != key) {
      state.functions.push_back({std::move(key), {}});
    }
    StoredVersion version;
    version.id = static_cast<uint64_t>(rows->IntAt(3));
    version.number = static_cast<uint32_t>(rows->IntAt(4));
    version.state = StateOf(rows->TextAt(5));
    version.spec_json = rows->TextAt(6);
    version.image_digest = rows->TextAt(7);
    version.created_unix_ms = rows->IntAt(8);
    state.functions.back().versions.push_back(std::move(version));
  }
}

Status StateStore::StoreImage(const ImageRecord& image, int64_t now_unix_ms) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("INSERT INTO images (owner, digest, os, architecture, variant,"
                                  " size_bytes, config, config_json, created_unix_ms,"
                                  " last_used_unix_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                                  " ?9) ON CONFLICT (owner, digest) DO UPDATE"
                                  " SET last_used_unix_ms = excluded.last_used_unix_ms"));
  PULGA_RETURN_IF_ERROR(row->Text(image.owner)
                            .Text(image.digest)
                            .Text(image.platform.os)
                            .Text(image.platform.architecture)
                            .Text(image.platform.variant)
                            .Int(static_cast<int64_t>(image.size_bytes))
                            .Text(ImageConfigToJson(image.config))
                            .Text(image.config_json)
                            .Int(now_unix_ms)
                            .Run());
  int64_t position = 0;
  for (const LayerRecord& layer : image.layers) {
    const std::string chain_id = layer.chain_id.Hex();
    PULGA_ASSIGN_OR_RETURN(Statement* const stored,
                           Prepared("INSERT INTO layers (chain_id, owner, diff_id, size_bytes,"
                                    " stream_bytes, disk_bytes, record_bytes)"
                                    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (chain_id)"
                                    " DO UPDATE SET size_bytes = excluded.size_bytes,"
                                    " stream_bytes = excluded.stream_bytes,"
                                    " disk_bytes = excluded.disk_bytes,"
                                    " record_bytes = excluded.record_bytes"
                                    " WHERE excluded.disk_bytes <> 0"));
    PULGA_RETURN_IF_ERROR(stored->Text(chain_id)
                              .Text(image.owner)
                              .Text(layer.diff_id)
                              .Int(static_cast<int64_t>(layer.size_bytes))
                              .Int(static_cast<int64_t>(layer.stream_bytes))
                              .Int(static_cast<int64_t>(layer.disk_bytes))
                              .Int(static_cast<int64_t>(layer.record_bytes))
                              .Run());
    PULGA_ASSIGN_OR_RETURN(
        Statement* const link,
        Prepared("INSERT OR IGNORE INTO image_layers (owner, digest, position, chain_id)"
                 " VALUES (?, ?, ?, ?)"));
    PULGA_RETURN_IF_ERROR(
        link->Text(image.owner).Text(image.digest).Int(position++).Text(chain_id).Run());
  }
  for (const std::string& ref : image.refs) {
    PULGA_ASSIGN_OR_RETURN(Statement* const name,
                           Prepared("INSERT INTO refs (owner, ref, digest) VALUES (?, ?, ?)"
                                    " ON CONFLICT (owner, ref)"
                                    " DO UPDATE SET digest = excluded.digest"));
    PULGA_RETURN_IF_ERROR(name->Text(image.owner).Text(ref).Text(image.digest).Run());
  }
  return OkStatus();
}

Status StateStore::StoreImages(const std::vector<ImageRecord>& images, int64_t now_unix_ms) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  for (const ImageRecord& image : images) {
    PULGA_RETURN_IF_ERROR(StoreImage(image, now_unix_ms));
  }
  return transaction.Commit();
}

Status StateStore::RemoveRef(const OwnedImage& ref) {
  return Freeing(
      [&]() -> Status { return RunOwned("DELETE FROM refs WHERE owner = ? AND ref = ?", ref); });
}

Result<std::vector<LayerId>> StateStore::RemoveImages(const std::vector<OwnedImage>& digests) {
  return Freeing([&]() -> Result<std::vector<LayerId>> {
    PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
    for (const OwnedImage& digest : digests) {
      PULGA_RETURN_IF_ERROR(RunOwned("DELETE FROM images WHERE owner = ? AND digest = ?", digest));
    }
    PULGA_ASSIGN_OR_RETURN(Statement* const unneeded, Prepared(kDropUnneededLayers));
    PULGA_ASSIGN_OR_RETURN(const std::vector<std::string> unused, TextsOf(*unneeded));
    PULGA_RETURN_IF_ERROR(transaction.Commit());
    std::vector<LayerId> layers;
    for (const std::string& hex : unused) {
      if (const auto id = LayerId::FromHex(hex)) layers.push_back(*id);
    }
    return layers;
  });
}

Result<int64_t> StateStore::FunctionId(const FunctionKey& key) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const found,
      Prepared("SELECT id FROM functions WHERE owner = ? AND name_space = ? AND name = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool row,
                         found->Text(key.owner).Text(key.name_space).Text(key.name).Step());
  if (!row) return Error{Code::kNotFound, 0, "function " + key.name + " does not exist"};
  const int64_t id = found->IntAt(0);
  found->Reset();
  return id;
}

Result<StoredVersion> StateStore::AddPending(const FunctionKey& key, StoredVersion version) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  PULGA_ASSIGN_OR_RETURN(
      Statement* const function,
      Prepared("INSERT OR IGNORE INTO functions (owner, name_space, name) VALUES (?, ?, ?)"));
  PULGA_RETURN_IF_ERROR(function->Text(key.owner).Text(key.name_space).Text(key.name).Run());
  PULGA_ASSIGN_OR_RETURN(const int64_t function_id, FunctionId(key));
  if (version.number == 0) {
    PULGA_ASSIGN_OR_RETURN(
        Statement* const highest,
        Prepared("SELECT coalesce(max(number), 0) FROM versions WHERE function_id = ?"));
    PULGA_ASSIGN_OR_RETURN(const bool row, highest->Int(function_id).Step());
    version.number = row ? static_cast<uint32_t>(highest->IntAt(0)) + 1 : 1;
    highest->Reset();
  }
  PULGA_ASSIGN_OR_RETURN(Statement* const insert,
                         Prepared("INSERT INTO versions (function_id, number, state, spec,"
                                  " image_owner, image_digest, created_unix_ms)"
                                  " VALUES (?, ?, 'pending', ?, ?, ?, ?)"));
  PULGA_RETURN_IF_ERROR(insert->Int(function_id)
                            .Int(version.number)
                            .Text(version.spec_json)
                            .Text(key.owner)
                            .Text(version.image_digest)
                            .Int(version.created_unix_ms)
                            .Run());
  version.id = static_cast<uint64_t>(database_->LastInsertId());
  version.state = StoredVersion::State::kPending;
  PULGA_RETURN_IF_ERROR(transaction.Commit());
  return version;
}

Result<std::vector<uint64_t>> StateStore::Activate(uint64_t version_id, uint32_t keep) {
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  PULGA_ASSIGN_OR_RETURN(Statement* const pending,
                         Prepared("SELECT function_id, number FROM versions"
                                  " WHERE id = ? AND state = 'pending'"));
  PULGA_ASSIGN_OR_RETURN(const bool row, pending->Int(static_cast<int64_t>(version_id)).Step());
  if (!row) return Error{Code::kNotFound, 0, "version is not stored"};
  const int64_t function_id = pending->IntAt(0);
  const int64_t number = pending->IntAt(1);
  pending->Reset();
  // The row under which this number was stored before, if it comes back.
  PULGA_ASSIGN_OR_RETURN(Statement* const former,
                         Prepared("DELETE FROM versions WHERE function_id = ? AND number = ?"
                                  " AND state <> 'pending'"));
  PULGA_RETURN_IF_ERROR(former->Int(function_id).Int(number).Run());
  PULGA_RETURN_IF_ERROR(
      RunInt("UPDATE versions SET state = 'kept' WHERE function_id = ? AND state = 'active'",
             static_cast<uint64_t>(function_id)));
  PULGA_RETURN_IF_ERROR(RunInt("UPDATE versions SET state = 'active' WHERE id = ?", version_id));
  PULGA_RETURN_IF_ERROR(TouchImagesOf(function_id));
  PULGA_ASSIGN_OR_RETURN(std::vector<uint64_t> forgotten, Prune(function_id, keep));
  PULGA_RETURN_IF_ERROR(transaction.Commit());
  return forgotten;
}

Result<std::vector<uint64_t>> StateStore::Prune(int64_t function_id, uint32_t keep) {
  // The active one counts, whatever its number.
  PULGA_ASSIGN_OR_RETURN(
      Statement* const prune,
      Prepared("DELETE FROM versions WHERE function_id = ?1 AND state = 'kept' AND id NOT IN"
               " (SELECT id FROM versions WHERE function_id = ?1 AND state = 'kept'"
               "  ORDER BY number DESC LIMIT ?2) RETURNING id"));
  prune->Int(function_id).Int(keep == 0 ? 0 : keep - 1);
  std::vector<uint64_t> forgotten;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, prune->Step());
    if (!row) return forgotten;
    forgotten.push_back(static_cast<uint64_t>(prune->IntAt(0)));
  }
}

Status StateStore::DropPending(uint64_t version_id) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
    PULGA_RETURN_IF_ERROR(
        RunInt("DELETE FROM versions WHERE id = ? AND state = 'pending'", version_id));
    PULGA_RETURN_IF_ERROR(database_->Execute(
        "DELETE FROM functions WHERE id NOT IN (SELECT function_id FROM versions)"));
    return transaction.Commit();
  });
}

Status StateStore::DeleteFunction(const FunctionKey& key) {
  return Freeing([&]() -> Status {
    PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
    PULGA_ASSIGN_OR_RETURN(const int64_t function_id, FunctionId(key));
    PULGA_RETURN_IF_ERROR(TouchImagesOf(function_id));
    PULGA_RETURN_IF_ERROR(
        RunInt("DELETE FROM functions WHERE id = ?", static_cast<uint64_t>(function_id)));
    return transaction.Commit();
  });
}

// An image was in use for as long as a version needed it.
Status StateStore::TouchImagesOf(int64_t function_id) {
  return RunInt(
      "UPDATE images SET last_used_unix_ms ="
      " CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
      " WHERE (owner, digest) IN"
      " (SELECT image_owner, image_digest FROM versions WHERE function_id = ?)",
      static_cast<uint64_t>(function_id));
}

}  // namespace pulga
