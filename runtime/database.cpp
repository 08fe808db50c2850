#include "runtime/database.h"

#include <fcntl.h>
#include <sqlite3.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"

namespace pulga {
namespace {

Code CodeOf(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return Code::kNoSpace;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Code::kUnavailable;
    case SQLITE_CONSTRAINT:
      return Code::kAlreadyExists;
    case SQLITE_TOOBIG:
      return Code::kTooLarge;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return Code::kPermission;
    default:
      return Code::kIo;
  }
}

Error DatabaseError(sqlite3* db, std::string_view what) {
  const int result = sqlite3_extended_errcode(db);
  std::string message = "database: " + std::string(what) + ": " + sqlite3_errmsg(db);
  // Only these two come from a system call; otherwise the number is an older error's.
  const int kind = result & 0xff;
  const bool from_system = kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN;
  const int error = from_system ? sqlite3_system_errno(db) : 0;
  if (error != 0) message += " (" + std::string(strerror(error)) + ")";
  const bool full = error == ENOSPC || error == EDQUOT;
  return Error{full ? Code::kNoSpace : CodeOf(result), error, std::move(message)};
}

bool IsDamage(int result) {
  return (result & 0xff) == SQLITE_CORRUPT || (result & 0xff) == SQLITE_NOTADB;
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_),
      statement_(std::exchange(other.statement_, nullptr)),
      next_parameter_(other.next_parameter_),
      bind_result_(other.bind_result_) {}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::Text(std::string_view value) {
  const int result = sqlite3_bind_text64(statement_, next_parameter_++, value.data(), value.size(),
                                         SQLITE_TRANSIENT, SQLITE_UTF8);
  if (bind_result_ == SQLITE_OK) bind_result_ = result;
  return *this;
}

Statement& Statement::Blob(std::string_view value) {
  // Not a null pointer, which would bind NULL.
  const char* bytes = value.empty() ? "" : value.data();
  const int result =
      sqlite3_bind_blob64(statement_, next_parameter_++, bytes, value.size(), SQLITE_TRANSIENT);
  if (bind_result_ == SQLITE_OK) bind_result_ = result;
  return *this;
}

Statement& Statement::Int(int64_t value) {
  const int result = sqlite3_bind_int64(statement_, next_parameter_++, value);
  if (bind_result_ == SQLITE_OK) bind_result_ = result;
  return *this;
}

Result<bool> Statement::Step() {
  const int result = bind_result_ != SQLITE_OK ? bind_result_ : sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) {
    Reset();
    return false;
  }
  const Error error = DatabaseError(db_, sqlite3_sql(statement_));
  Reset();
  return error;
}

Status Statement::Run() {
  const auto row = Step();
  Reset();
  return Status(row);
}

void Statement::Reset() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  next_parameter_ = 1;
  bind_result_ = SQLITE_OK;
}

std::string Statement::TextAt(int column) const {
  // A blob's bytes and a text's are read alike.
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

int64_t Statement::IntAt(int column) const { return sqlite3_column_int64(statement_, column); }

Result<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  // Made here first so that it is never readable by others, not even for a moment.
  PULGA_RETURN_IF_ERROR(Status(OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600)));
  sqlite3* db = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  const int result = sqlite3_open_v2(path.c_str(), &db, flags, nullptr);
  std::unique_ptr<Database> database(new Database(db));
  if (result != SQLITE_OK) return DatabaseError(db, "open");
  sqlite3_busy_timeout(db, 5000);
  // Names and literals from a damaged schema run nothing.
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return database;
}

void Database::AllowCheckpointOnClose() {
  sqlite3_db_config(db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
}

Database::~Database() {
  prepared_.clear();
  if (sqlite3_close(db_) != SQLITE_OK) LogWarning("database: closed with statements open");
}

Result<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (result != SQLITE_OK) return DatabaseError(db_, sql);
  return Statement(db_, statement);
}

Result<Statement*> Database::Prepared(const char* sql) {
  const auto it = prepared_.find(sql);
  if (it != prepared_.end()) {
    it->second.Reset();
    return &it->second;
  }
  PULGA_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  return &prepared_.emplace(sql, std::move(statement)).first->second;
}

Status Database::Execute(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return OkStatus();
  return DatabaseError(db_, sql.substr(0, 60));
}

Result<int64_t> Database::QueryInt(const std::string& sql) {
  PULGA_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  PULGA_ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return Error{Code::kIo, 0, "database: " + sql + ": no row"};
  return statement.IntAt(0);
}

Result<std::vector<std::string>> Database::Problems(const char* pragma) {
  std::vector<std::string> problems;
  // What cannot be read for another reason, a full disk or a lack of memory, may be sound.
  const auto failed = [this, &problems](const Error& error) -> Result<std::vector<std::string>> {
    if (!IsDamage(sqlite3_extended_errcode(db_))) return error;
    problems.push_back(error.message);
    return problems;
  };
  auto statement = Prepare("PRAGMA " + std::string(pragma) + "(20)");
  if (!statement.ok()) return failed(statement.error());
  while (true) {
    const auto row = statement->Step();
    if (!row.ok()) return failed(row.error());
    if (!*row) return problems;
    if (statement->TextAt(0) != "ok") problems.push_back(statement->TextAt(0));
  }
}

int64_t Database::LastInsertId() const { return sqlite3_last_insert_rowid(db_); }

Result<Transaction> Transaction::Begin(Database& database) {
  PULGA_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

Transaction::~Transaction() {
  if (database_ == nullptr) return;
  const Status rolled_back = database_->Execute("ROLLBACK");
  // SQLite rolls back by itself after some errors; then there is nothing left to do.
  if (!rolled_back.ok()) LogDebug(rolled_back.error().message);
}

Status Transaction::Commit() {
  PULGA_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return OkStatus();
}

}  // namespace pulga
