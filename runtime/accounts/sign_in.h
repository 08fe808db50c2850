// SignIn: a user's name and password become a key that ends by itself. Passwords are hashed one at
// a time on a thread of their own, which is there from the first on; few may wait for it, so that a
// flood of attempts takes one processor at most and no memory. What is wrong (user, password, or
// that they are disabled) shows neither in the answer nor in its time. Loop thread. Source:
// docs/accounts.md, "Passwords"; NIST SP 800-63B, 3.2.2.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "runtime/accounts/account_service.h"
#include "runtime/accounts/sign_in_limits.h"

namespace pulga {

struct SignInAttempt {
  std::string user;
  std::string password;
  std::string address;  // where it comes from
};

class SignIn {
 public:
  static constexpr Duration kLifetime = std::chrono::hours(12);
  static constexpr size_t kMaxWaiting = 8;

  SignIn(EventLoop& loop, const Clock& clock, AccountService& accounts)
      : loop_(loop), clock_(clock), accounts_(accounts) {}
  ~SignIn() { *given_up_ = true; }

  // kPermission: wrong, in one text for all reasons, or, with a `wait`, not even looked at for so
  // long; kUnavailable: too many try.
  void Check(SignInAttempt attempt, std::function<void(const Status&, Duration wait)> done);
  // The same, and a key.
  void Try(SignInAttempt attempt, std::function<void(Result<NewKey>, Duration wait)> done);
  // Ends what the user signed in for before. kInvalidArgument, kNotFound, kUnavailable.
  void SetPassword(const std::string& user, std::string password, std::function<void(Status)> done);

 private:
  Status Judge(const SignInAttempt& attempt, const std::string& hash, bool matches);
  // Room for one more, and a thread to run it.
  Status MakeReady();
  // `work` on the thread; `done` with what it gives, on the loop.
  template <typename Work, typename Done>
  void Hash(Work work, Done done);

  EventLoop& loop_;
  const Clock& clock_;
  AccountService& accounts_;
  SignInLimits limits_;
  size_t waiting_ = 0;
  // What waits for the thread at the end is not hashed any more.
  std::shared_ptr<std::atomic<bool>> given_up_ = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<WorkQueue> thread_;
};

}  // namespace pulga
