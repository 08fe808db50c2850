// Database: one SQLite file behind one small class; the only user of sqlite3.h is database.cpp.
// Blocks on the disk: storage thread and start-up only. One process and one thread at a time.
// WAL, synchronous=FULL (what is acknowledged survives a power cut), foreign keys on, waits at most
// 5 s for a lock held by a reader from outside.
// On failure: kIo or kNoSpace naming statement and reason; the file is never deleted or emptied.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace pulga {

// A prepared statement, reset and reusable after every run. Errors stick until Done() or Reset().
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Binds parameters in order, from the first.
  Statement& Text(std::string_view value);
  Statement& Blob(std::string_view value);
  Statement& Int(int64_t value);
  // True while there is a row. Call until false, or Reset().
  Result<bool> Step();
  // For statements without rows: runs once and resets.
  Status Run();
  void Reset();

  std::string TextAt(int column) const;  // of a blob, too
  int64_t IntAt(int column) const;

 private:
  friend class Database;
  Statement(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  sqlite3* db_;
  sqlite3_stmt* statement_;
  int next_parameter_ = 1;
  int bind_result_ = 0;
};

class Database {
 public:
  // Creates the file (mode 0600) when it does not exist.
  static Result<std::unique_ptr<Database>> Open(const std::string& path);
  // Removes the -wal file only once AllowCheckpointOnClose() was called: until the content has been
  // found sound, nothing in it is moved.
  ~Database();
  void AllowCheckpointOnClose();

  Result<Statement> Prepare(std::string_view sql);
  // Prepared once, then kept and handed out reset. `sql` is a literal: it is known by its address.
  Result<Statement*> Prepared(const char* sql);
  Status Execute(const std::string& sql);  // one or more statements, no rows
  Result<int64_t> QueryInt(const std::string& sql);
  // Everything `PRAGMA quick_check` or `integrity_check` complains about, at most 20 lines.
  Result<std::vector<std::string>> Problems(const char* pragma);
  int64_t LastInsertId() const;

 private:
  explicit Database(sqlite3* db) : db_(db) {}
  sqlite3* db_;
  std::map<const char*, Statement> prepared_;
};

// BEGIN IMMEDIATE now; ROLLBACK at the scope's end unless Commit() succeeded.
class Transaction {
 public:
  static Result<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status Commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace pulga
