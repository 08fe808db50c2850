// Who may do what: one table over role, action and whose the thing is, and what a key's scopes
// leave of it. Pure. Source: docs/accounts.md, "Who may do what", which has the same table.
#pragma once

#include <string>

#include "runtime/accounts/account.h"

namespace pulga {

enum class Action : uint8_t {
  kUseAccount,    // see a user and the keys they have; revoke keys
  kMakeKeys,      // for a user
  kCall,          // functions, where calls need a key
  kSeeBoard,      // the system report, metrics
  kSeeFunctions,  // functions, images, volumes: what there is
  kDeploy,        // change them; their logs, secrets and tasks
  kAdminister,    // users, and whatever has no action of its own
};

enum class Ownership : uint8_t { kOwn, kOthers };

// Who asks.
struct Identity {
  std::string user;
  Role role = Role::kLimited;
  Scopes scopes = 0;
};

bool Permits(Role role, Action action, Ownership ownership);
// One of these a key must have.
Scopes ScopesFor(Action action);
bool Permits(const Identity& who, Action action, Ownership ownership);

}  // namespace pulga
