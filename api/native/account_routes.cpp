#include <arpa/inet.h>

#include <algorithm>

#include "api/account_codec.h"
#include "api/authorization.h"
#include "api/handlers.h"
#include "api/native/routes.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kSmallBody = 4096;

HttpReply RefusedUser(const Error& error) { return ErrorReply(ToApiError(error, "user")); }
HttpReply RefusedKey(const Error& error) { return ErrorReply(ToApiError(error, "key")); }

// Of another's, too: nobody learns which names and ids there are.
Error NotThere(const char* what) {
  return Error{Code::kNotFound, 0, std::string(what) + " does not exist"};
}

bool MayUse(const Identity& who, Action action, const std::string& user) {
  return Permits(who, action, who.user == user ? Ownership::kOwn : Ownership::kOthers);
}

// Calls `serve` with who asks, their body, and where the reply goes. The front has let them in.
using AccountFunction =
    std::function<void(const Identity& who, const std::string& body, const ReplyDone& done)>;
std::unique_ptr<HttpHandler> ForHolder(Engine& engine, HttpExchange& exchange,
                                       AccountFunction serve) {
  auto who = HolderOfKey(exchange.request(), engine);
  if (!who) {
    // Their key expired a moment ago.
    return Immediately(exchange, ErrorReply({401, "unauthorized", "the key has expired", {}}));
  }
  return WithBody(exchange, kSmallBody,
                  [who = std::move(*who), serve = std::move(serve)](
                      const std::string& body, const ReplyDone& done) { serve(who, body, done); });
}

void ListUsers(Engine& engine, const Identity& who, const ReplyDone& done) {
  std::vector<User> users = engine.accounts().Users();
  std::erase_if(users,
                [&](const User& user) { return !MayUse(who, Action::kUseAccount, user.name); });
  done(JsonReply(200, UserListJson(users)));
}

void ShowUser(Engine& engine, const Identity& who, const std::string& name, const ReplyDone& done) {
  const User* user = engine.accounts().FindUser(name);
  if (user == nullptr || !MayUse(who, Action::kUseAccount, name)) {
    return done(RefusedUser(NotThere("the user")));
  }
  done(JsonReply(200, UserJson(*user)));
}

void AddUser(Engine& engine, const std::string& body, const ReplyDone& done) {
  auto user = ParseNewUserBody(body);
  if (!user.ok()) return done(RefusedUser(user.error()));
  engine.accounts().AddUser(std::move(*user), [done](const Result<User>& added) {
    done(added.ok() ? JsonReply(201, UserJson(*added)) : RefusedUser(added.error()));
  });
}

void ChangeUser(Engine& engine, const std::string& name, const std::string& body,
                const ReplyDone& done) {
  const auto change = ParseUserChangeBody(body);
  if (!change.ok()) return done(RefusedUser(change.error()));
  engine.accounts().ChangeUser(name, *change, [done](const Result<User>& changed) {
    done(changed.ok() ? JsonReply(200, UserJson(*changed)) : RefusedUser(changed.error()));
  });
}

void ListKeys(Engine& engine, const Identity& who, const ReplyDone& done) {
  std::vector<ApiKey> keys = engine.accounts().Keys();
  std::erase_if(keys,
                [&](const ApiKey& key) { return !MayUse(who, Action::kUseAccount, key.user); });
  done(JsonReply(200, KeyListJson(keys)));
}

void MakeKey(Engine& engine, const Identity& who, const std::string& body, const ReplyDone& done) {
  auto order = ParseKeyOrderBody(body, who.user);
  if (!order.ok()) return done(RefusedKey(order.error()));
  // Whether there is such a user or not.
  if (!MayUse(who, Action::kMakeKeys, order->user)) {
    return done(RefusedUser(NotThere("the user")));
  }
  engine.accounts().MakeKey(std::move(*order), [done](const Result<NewKey>& made) {
    if (made.ok()) return done(JsonReply(201, NewKeyJson(*made)));
    done(made.error().code == Code::kNotFound ? RefusedUser(made.error())
                                              : RefusedKey(made.error()));
  });
}

void RevokeKey(Engine& engine, const Identity& who, const std::string& id, const ReplyDone& done) {
  const ApiKey* key = engine.accounts().FindKey(id);
  if (key == nullptr || !MayUse(who, Action::kUseAccount, key->user)) {
    return done(RefusedKey(NotThere("the key")));
  }
  engine.accounts().RevokeKey(id, [done](const Status& revoked) {
    done(revoked.ok() ? EmptyReply(204) : RefusedKey(revoked.error()));
  });
}

// Of the address alone: of an IPv6 one the half that names its network.
std::string AddressOf(const std::string& peer) {
  std::string address = peer.substr(0, peer.rfind(':'));
  in6_addr raw = {};
  if (!address.starts_with('[')) return address;
  const std::string inner = address.substr(1, address.find_first_of("]%") - 1);
  if (inet_pton(AF_INET6, inner.c_str(), &raw) != 1) return address;
  return HexEncode(std::string_view(reinterpret_cast<const char*>(raw.s6_addr), 8));
}

// What was wrong with a password, and for how long none is looked at.
HttpReply RefusedPassword(const Error& error, Duration wait) {
  if (error.code != Code::kPermission) return RefusedUser(error);
  if (wait == Duration::zero()) {
    return ErrorReply({401, "wrong_credentials", error.message, {}});
  }
  HttpReply reply = ErrorReply({429, "too_many_attempts", error.message, {}});
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(wait).count();
  for (auto& [name, value] : reply.headers) {
    if (name == "Retry-After") value = std::to_string(seconds);
  }
  return reply;
}

std::unique_ptr<HttpHandler> SignInHandler(Engine& engine, HttpExchange& exchange) {
  std::string address = AddressOf(exchange.request().peer);
  return WithBody(
      exchange, kSmallBody,
      [&engine, address = std::move(address)](const std::string& body, const ReplyDone& done) {
        auto attempt = ParseSignInBody(body);
        if (!attempt.ok()) return done(RefusedUser(attempt.error()));
        attempt->address = address;
        engine.sign_in().Try(std::move(*attempt),
                             [done](const Result<NewKey>& made, Duration wait) {
                               if (!made.ok()) return done(RefusedPassword(made.error(), wait));
                               done(JsonReply(200, NewKeyJson(*made)));
                             });
      });
}

void StorePassword(Engine& engine, const std::string& name, std::string password,
                   const ReplyDone& done) {
  engine.sign_in().SetPassword(name, std::move(password), [done](const Status& set) {
    done(set.ok() ? EmptyReply(204) : RefusedUser(set.error()));
  });
}

// Whoever is no administrator has to know the one before: a key that was left behind is not enough.
void SetPassword(Engine& engine, const Identity& who, SignInAttempt current,
                 const std::string& body, const ReplyDone& done) {
  auto change = ParsePasswordBody(body);
  if (!change.ok()) return done(RefusedUser(change.error()));
  if (engine.accounts().FindUser(current.user) == nullptr ||
      !MayUse(who, Action::kUseAccount, current.user)) {
    return done(RefusedUser(NotThere("the user")));
  }
  if (who.role == Role::kAdministrator) {
    return StorePassword(engine, current.user, std::move(change->password), done);
  }
  current.password = std::move(change->current);
  const std::string name = current.user;
  engine.sign_in().Check(std::move(current), [&engine, name, password = change->password, done](
                                                 const Status& right, Duration wait) {
    if (!right.ok()) return done(RefusedPassword(right.error(), wait));
    StorePassword(engine, name, password, done);
  });
}

void AddPasswordRoutes(Router& router, Engine& engine) {
  router.Add("POST", std::string(kSignInPath),
             [&engine](HttpExchange& exchange, const PathParams&) {
               return SignInHandler(engine, exchange);
             });
  router.Add("PUT", "/v1/users/{name}/password",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               SignInAttempt current{params.name, "", AddressOf(exchange.request().peer)};
               return ForHolder(engine, exchange,
                                [&engine, current](const Identity& who, const std::string& body,
                                                   const ReplyDone& done) {
                                  SetPassword(engine, who, current, body, done);
                                });
             });
}

void AddUserRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/users", [&engine](HttpExchange& exchange, const PathParams&) {
    return ForHolder(engine, exchange,
                     [&engine](const Identity& who, const std::string&, const ReplyDone& done) {
                       ListUsers(engine, who, done);
                     });
  });
  router.Add("POST", "/v1/users", [&engine](HttpExchange& exchange, const PathParams&) {
    return WithBody(
        exchange, kSmallBody,
        [&engine](const std::string& body, const ReplyDone& done) { AddUser(engine, body, done); });
  });
  router.Add("GET", "/v1/users/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return ForHolder(engine, exchange,
                                [&engine, name = params.name](
                                    const Identity& who, const std::string&,
                                    const ReplyDone& done) { ShowUser(engine, who, name, done); });
             });
  router.Add("PATCH", "/v1/users/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return WithBody(
                   exchange, kSmallBody,
                   [&engine, name = params.name](const std::string& body, const ReplyDone& done) {
                     ChangeUser(engine, name, body, done);
                   });
             });
  router.Add(
      "DELETE", "/v1/users/{name}", [&engine](HttpExchange& exchange, const PathParams& params) {
        return WithBody(exchange, 0,
                        [&engine, name = params.name](const std::string&, const ReplyDone& done) {
                          engine.accounts().RemoveUser(name, [done](const Status& removed) {
                            done(removed.ok() ? EmptyReply(204) : RefusedUser(removed.error()));
                          });
                        });
      });
}

}  // namespace

void AddAccountRoutes(Router& router, Engine& engine) {
  AddUserRoutes(router, engine);
  AddPasswordRoutes(router, engine);
  router.Add("GET", "/v1/keys", [&engine](HttpExchange& exchange, const PathParams&) {
    return ForHolder(engine, exchange,
                     [&engine](const Identity& who, const std::string&, const ReplyDone& done) {
                       ListKeys(engine, who, done);
                     });
  });
  router.Add("POST", "/v1/keys", [&engine](HttpExchange& exchange, const PathParams&) {
    return ForHolder(engine, exchange,
                     [&engine](const Identity& who, const std::string& body,
                               const ReplyDone& done) { MakeKey(engine, who, body, done); });
  });
  router.Add("DELETE", "/v1/keys/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return ForHolder(engine, exchange,
                                [&engine, id = params.name](const Identity& who, const std::string&,
                                                            const ReplyDone& done) {
                                  RevokeKey(engine, who, id, done);
                                });
             });
}

}  // namespace pulga
