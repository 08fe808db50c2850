#include "runtime/accounts/sign_in.h"

#include <utility>

#include "runtime/accounts/password.h"

namespace pulga {
namespace {

// What of it can be compared: a disabled user, or one without a password, has nobody's.
std::string HashOf(const User* user) {
  const bool usable = user != nullptr && user->state == UserState::kActive;
  return usable && !user->password_hash.empty() ? user->password_hash : HashOfNobody();
}

}  // namespace

Status SignIn::MakeReady() {
  if (waiting_ >= kMaxWaiting) {
    return Error{Code::kUnavailable, 0, "too many passwords are being checked: try again"};
  }
  if (thread_ != nullptr) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(thread_, WorkQueue::Start("pulga-password", loop_));
  return OkStatus();
}

template <typename Work, typename Done>
void SignIn::Hash(Work work, Done done) {
  ++waiting_;
  using Answer = std::optional<decltype(work())>;
  thread_->Run(
      [work = std::move(work), given_up = given_up_]() -> Answer {
        if (*given_up) return std::nullopt;
        return work();
      },
      [this, done = std::move(done), given_up = given_up_](Answer answer) {
        if (!answer || *given_up) return;
        --waiting_;
        done(std::move(*answer));
      });
}

void SignIn::Check(SignInAttempt attempt, std::function<void(const Status&, Duration wait)> done) {
  const Duration wait = limits_.WaitOf(attempt.user, attempt.address, clock_.Now());
  if (wait > Duration::zero()) {
    return done(Error{Code::kPermission, 0, "too many wrong passwords: try again later"}, wait);
  }
  const Status ready = MakeReady();
  if (!ready.ok()) return done(ready, Duration::zero());
  std::string hash = HashOf(accounts_.FindUser(attempt.user));
  auto work = [password = attempt.password, hash] { return MatchesPassword(password, hash); };
  Hash(std::move(work),
       [this, attempt = std::move(attempt), hash, done = std::move(done)](bool matches) {
         done(Judge(attempt, hash, matches), Duration::zero());
       });
}

Status SignIn::Judge(const SignInAttempt& attempt, const std::string& hash, bool matches) {
  // Nobody's hash matches nothing; and the user may have been changed meanwhile.
  if (!matches || HashOf(accounts_.FindUser(attempt.user)) != hash) {
    limits_.NoteFailure(attempt.user, attempt.address, clock_.Now());
    return Error{Code::kPermission, 0, "the name or the password is wrong"};
  }
  limits_.NoteSuccess(attempt.user, attempt.address);
  return OkStatus();
}

void SignIn::Try(SignInAttempt attempt, std::function<void(Result<NewKey>, Duration wait)> done) {
  KeyOrder order{attempt.user, "signed in", kAllScopes, kLifetime, ApiKey::Kind::kSession};
  Check(std::move(attempt), [this, order = std::move(order), done = std::move(done)](
                                const Status& right, Duration wait) {
    if (!right.ok()) return done(right.error(), wait);
    accounts_.MakeKey(order, [done](Result<NewKey> made) { done(std::move(made), {}); });
  });
}

void SignIn::SetPassword(const std::string& user, std::string password,
                         std::function<void(Status)> done) {
  const Status fit = CheckPassword(password, user);
  if (!fit.ok()) return done(fit);
  const Status ready = MakeReady();
  if (!ready.ok()) return done(ready);
  Hash([password = std::move(password)] { return HashPassword(password); },
       [this, user, done = std::move(done)](Result<std::string> hash) {
         if (!hash.ok()) return done(hash.error());
         accounts_.SetPassword(user, std::move(*hash), done);
       });
}

}  // namespace pulga
