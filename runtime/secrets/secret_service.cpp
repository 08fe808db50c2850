#include "runtime/secrets/secret_service.h"

#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace pulga {
namespace {

Error NotThere(const FunctionKey& secret) {
  return Error{Code::kNotFound, 0, "unable to find secret: " + Printable(secret.name, 80)};
}

}  // namespace

SecretService::SecretService(SecretParts parts)
    : parts_(std::move(parts)),
      vault_(parts_.store, parts_.data_dir),
      ops_(parts_.loop),
      held_(std::make_shared<std::multiset<FunctionKey>>()) {}

void SecretService::Load(const std::vector<StoredSecret>& secrets) {
  for (const StoredSecret& row : secrets) {
    secrets_[row.key] = {row.key, row.bytes, row.created_unix_ms, row.changed_unix_ms, {}};
  }
}

std::vector<SecretView> SecretService::List() const {
  std::vector<SecretView> out;
  out.reserve(secrets_.size());
  for (const auto& [key, secret] : secrets_) {
    out.push_back(secret);
    out.back().used_by = parts_.users(key);
  }
  return out;
}

Status SecretService::MayPut(const FunctionKey& secret, SecretWrite write) const {
  const bool there = secrets_.contains(secret);
  if (there && write == SecretWrite::kCreate) {
    return Error{Code::kAlreadyExists, 0,
                 "secret " + secret.name + " exists: update it, or choose another name"};
  }
  if (!there && write == SecretWrite::kReplace) return NotThere(secret);
  if (there || secrets_.size() < kMaxSecrets) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "there are " + std::to_string(kMaxSecrets) + " secrets already: remove some"};
}

void SecretService::Put(const FunctionKey& secret, std::string value, SecretWrite write,
                        std::function<void(Result<SecretPut>)> done) {
  const Status named = CheckSecretName(secret.name);
  if (!named.ok()) return done(named.error());
  if (value.size() > kMaxSecretBytes) {
    return done(Error{Code::kTooLarge, 0, "a secret may have 1 MiB at most"});
  }
  ops_.Add([this, secret, value = std::move(value), write,
            done = std::move(done)](const OpQueue::Done& next) mutable {
    PutNow(secret, std::move(value), write, [done, next](Result<SecretPut> put) {
      done(std::move(put));
      next();
    });
  });
}

void SecretService::PutNow(const FunctionKey& secret, std::string value, SecretWrite write,
                           std::function<void(Result<SecretPut>)> done) {
  const Status may = MayPut(secret, write);
  if (!may.ok()) return done(may.error());
  const int64_t now = UnixMillis(parts_.clock);
  const uint64_t bytes = value.size();
  parts_.storage.Run(
      [&vault = vault_, secret, value = std::move(value), now] {
        return vault.Put(secret, value, now);
      },
      [this, secret, bytes, now, done = std::move(done)](const Status& stored) {
        if (!stored.ok()) return done(Prefix("store the secret", stored.error()));
        const auto [it, is_new] = secrets_.try_emplace(secret, SecretView{secret, 0, now, 0, {}});
        it->second.bytes = bytes;
        it->second.changed_unix_ms = now;
        LogInfo((is_new ? "created secret " : "updated secret ") + secret.name);
        if (on_changed_) on_changed_(secret);
        SecretPut put{is_new ? SecretPut::Effect::kCreated : SecretPut::Effect::kReplaced,
                      it->second};
        put.secret.used_by = parts_.users(secret);
        done(std::move(put));
      });
}

std::string SecretService::UserOf(const FunctionKey& secret) const {
  const std::vector<std::string> users = parts_.users(secret);
  if (!users.empty()) return "function " + Join(users, ", function ");
  return held_->contains(secret) ? "a function being deployed" : "";
}

void SecretService::Remove(const FunctionKey& secret, SecretRemoval removal,
                           std::function<void(Status)> done) {
  ops_.Add([this, secret, removal, done = std::move(done)](const OpQueue::Done& next) {
    RemoveNow(secret, removal, [done, next](Status removed) {
      done(std::move(removed));
      next();
    });
  });
}

void SecretService::RemoveNow(const FunctionKey& secret, SecretRemoval removal,
                              std::function<void(Status)> done) {
  if (!secrets_.contains(secret)) return done(NotThere(secret));
  const std::string user = UserOf(secret);
  if (!user.empty() && removal == SecretRemoval::kUnused) {
    return done(Error{Code::kAlreadyExists, 0, "secret " + secret.name + " is in use by " + user});
  }
  parts_.storage.Run([&store = parts_.store, secret] { return store.DeleteSecret(secret); },
                     [this, secret, done = std::move(done)](Status removed) {
                       if (!removed.ok()) return done(Prefix("remove the secret", removed.error()));
                       secrets_.erase(secret);
                       LogInfo("removed secret " + secret.name);
                       done(std::move(removed));
                     });
}

Result<SecretService::Hold> SecretService::HoldFor(const FunctionKey& function,
                                                   const std::vector<std::string>& names) {
  std::vector<FunctionKey> keys;
  uint64_t bytes = 0;
  for (const std::string& name : names) {
    keys.push_back({function.owner, function.name_space, name});
    const auto secret = secrets_.find(keys.back());
    if (secret == secrets_.end()) {
      return Error{Code::kInvalidArgument, 0, NotThere(keys.back()).message};
    }
    bytes += secret->second.bytes;
  }
  PULGA_RETURN_IF_ERROR(CheckSecretBytes(bytes));
  held_->insert(keys.begin(), keys.end());
  return Hold(nullptr, [held = held_, keys](void*) {
    for (const FunctionKey& key : keys) held->erase(held->find(key));
  });
}

void SecretService::Reveal(const FunctionKey& function, const std::vector<std::string>& names,
                           std::function<void(Result<std::vector<SecretFile>>)> done) {
  parts_.storage.Run([&vault = vault_, function, names] { return vault.Reveal(function, names); },
                     std::move(done));
}

}  // namespace pulga
