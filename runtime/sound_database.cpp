#include "runtime/sound_database.h"

#include <sys/stat.h>

#include "base/log.h"
#include "base/text.h"
#include "runtime/state_schema.h"

namespace pulga {
namespace {

Status CheckSound(Database& database, const char* pragma, const DatabaseFile& file) {
  const auto problems = database.Problems(pragma);
  if (!problems.ok()) return Prefix(file.name, problems.error());
  if (problems->empty()) return OkStatus();
  return Error{
      Code::kIo, 0,
      file.name + ": is damaged: " + Printable(problems->front(), 160) + "." + file.advice};
}

}  // namespace

Result<std::unique_ptr<Database>> OpenSound(const DatabaseFile& file) {
  const std::string path = file.directory + "/" + file.name;
  // A clean stop leaves no write-ahead log behind.
  struct stat log = {};
  const bool unclean = stat((path + "-wal").c_str(), &log) == 0 && log.st_size > 0;
  PULGA_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  PULGA_RETURN_IF_ERROR(CheckSound(*database, unclean ? "integrity_check" : "quick_check", file));
  // A migration may rebuild what foreign keys refer to: they count only behind it.
  // SQLite's own page cache, 2 MiB by default, would double the kernel's: nobody waits for a read.
  const Status safe = database->Execute(
      "PRAGMA synchronous = FULL; PRAGMA cache_size = -256; PRAGMA foreign_keys = OFF");
  if (!safe.ok()) return Prefix(file.name, safe.error());
  const Status migrated = Migrate(*database, file.migrations);
  if (!migrated.ok()) return Prefix(file.name, migrated.error());
  const Status keys = database->Execute("PRAGMA foreign_keys = ON");
  if (!keys.ok()) return Prefix(file.name, keys.error());
  // Only now: on a file that is not ours it would be a change.
  const Status wal = database->Execute("PRAGMA journal_mode = WAL");
  if (!wal.ok()) return Prefix(file.name, wal.error());
  database->AllowCheckpointOnClose();
  if (unclean) LogInfo(file.name + " was not closed by the last run; checked, sound");
  return database;
}

}  // namespace pulga
