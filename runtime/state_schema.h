// The database's schema as numbered migrations, from the first. A migration is never edited once
// released: a change is a new one at the end. Each runs in one transaction with its number.
#pragma once

#include <span>

#include "base/result.h"
#include "runtime/database.h"

namespace pulga {

inline constexpr int64_t kApplicationId = 0x50756c67;  // "Pulg", in the file's header

std::span<const char* const> StateMigrations();  // [0] makes schema 1

// Brings the database to schema `migrations.size()`. kUnsupported when it is newer than that, or
// not ours at all; then nothing was changed.
Status Migrate(Database& database, std::span<const char* const> migrations);

}  // namespace pulga
