// SecretVault: secrets as sealed rows, and the key they are sealed with, DATA/secrets.key (0600),
// which is made with the first secret. Blocks on the disk: storage thread.
// A key that is missing, or another one, is kUnavailable, in words; no row is ever lost by it. A
// row that was changed by somebody else is kIo.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/secrets/seal.h"
#include "runtime/state_store.h"
#include "sandbox/secret_file.h"

namespace pulga {

inline constexpr const char* kSecretsKeyFile = "secrets.key";

class SecretVault {
 public:
  SecretVault(StateStore& store, std::string data_dir)
      : store_(store), data_dir_(std::move(data_dir)) {}

  // Creates or replaces. What was answered with Ok is on disk.
  Status Put(const FunctionKey& secret, std::string_view value, int64_t now_unix_ms);
  // All of them, in this order, of one owner and namespace. kNotFound: "unable to find secret: x".
  // kInvalidArgument: they have grown to more together than a function may have.
  Result<std::vector<SecretFile>> Reveal(const FunctionKey& function,
                                         const std::vector<std::string>& names);

 private:
  // The file is read each time: it is small, asked for seldom, and may be put back meanwhile.
  Result<std::optional<SealKey>> ReadKey() const;
  Result<SealKey> KeyForSealing();

  StateStore& store_;
  std::string data_dir_;
};

}  // namespace pulga
