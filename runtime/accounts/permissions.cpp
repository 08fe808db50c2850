#include "runtime/accounts/permissions.h"

namespace pulga {

bool Permits(Role role, Action action, Ownership ownership) {
  if (role == Role::kAdministrator) return true;
  const bool own = ownership == Ownership::kOwn;
  const bool standard = role == Role::kStandard;
  switch (action) {
    case Action::kUseAccount:
      return own;
    case Action::kMakeKeys:
      return own && standard;
    case Action::kCall:
      return true;
    case Action::kSeeBoard:
      return standard;
    case Action::kSeeFunctions:
    case Action::kDeploy:
    case Action::kAdminister:
      return false;
  }
  return false;
}

Scopes ScopesFor(Action action) {
  constexpr auto kSignIn = static_cast<Scopes>(Scope::kSignIn);
  constexpr auto kDeploy = static_cast<Scopes>(Scope::kDeploy);
  switch (action) {
    case Action::kCall:
      return static_cast<Scopes>(Scope::kInvoke);
    case Action::kSeeFunctions:
      return kSignIn | kDeploy;
    case Action::kDeploy:
      return kDeploy;
    case Action::kUseAccount:
    case Action::kMakeKeys:
    case Action::kSeeBoard:
    case Action::kAdminister:
      return kSignIn;
  }
  return 0;
}

bool Permits(const Identity& who, Action action, Ownership ownership) {
  return (who.scopes & ScopesFor(action)) != 0 && Permits(who.role, action, ownership);
}

}  // namespace pulga
