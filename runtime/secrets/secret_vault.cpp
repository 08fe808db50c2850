#include "runtime/secrets/secret_vault.h"

#include "base/file_io.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/own_file.h"
#include "runtime/secrets/secret.h"

namespace pulga {
namespace {

// What a value is sealed for: it opens as no other secret. Names hold no NUL.
std::string Belonging(const FunctionKey& secret) {
  std::string out = "pulga secret 1";
  for (const std::string* part : {&secret.owner, &secret.name_space, &secret.name}) {
    out += '\0';
    out += *part;
  }
  return out;
}

Error KeyMissing(int64_t secrets) {
  return Error{Code::kUnavailable, 0,
               std::string(kSecretsKeyFile) + " is missing from the data directory, and " +
                   std::to_string(secrets) +
                   " secrets are sealed with it: put it back, or remove them (pulga secret rm "
                   "--force) and create them anew"};
}

}  // namespace

Result<std::optional<SealKey>> SecretVault::ReadKey() const {
  const std::string path = data_dir_ + "/" + kSecretsKeyFile;
  const auto file = OpenOwnFile(path, 0600);
  if (!file.ok() && file.error().code == Code::kNotFound) return std::optional<SealKey>();
  if (!file.ok()) return Error{Code::kUnavailable, 0, file.error().message};
  PULGA_ASSIGN_OR_RETURN(std::string text, ReadFd(file->get(), 4096));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  auto key = SealKey::FromHex(text);
  if (key) return key;
  return Error{Code::kUnavailable, 0,
               std::string(kSecretsKeyFile) +
                   " is damaged (64 hex digits are expected): put the right one back"};
}

Result<SealKey> SecretVault::KeyForSealing() {
  PULGA_ASSIGN_OR_RETURN(auto key, ReadKey());
  if (key) return std::move(*key);
  PULGA_ASSIGN_OR_RETURN(const int64_t secrets, store_.CountSecrets());
  if (secrets != 0) return KeyMissing(secrets);
  const std::string hex = RandomHex(kSealKeyBytes);
  PULGA_RETURN_IF_ERROR(WriteFileDurably(data_dir_ + "/" + kSecretsKeyFile, hex, 0600));
  LogInfo("made a new key for secrets");
  return *SealKey::FromHex(hex);
}

Status SecretVault::Put(const FunctionKey& secret, std::string_view value, int64_t now_unix_ms) {
  PULGA_ASSIGN_OR_RETURN(const SealKey key, KeyForSealing());
  const SealedText sealed = key.Seal(value, Belonging(secret));
  StoredSecret row;
  row.key = secret;
  row.key_id = key.id();
  row.nonce = sealed.nonce;
  row.sealed = sealed.text;
  row.bytes = value.size();
  row.created_unix_ms = row.changed_unix_ms = now_unix_ms;
  return store_.PutSecret(row);
}

Result<std::vector<SecretFile>> SecretVault::Reveal(const FunctionKey& function,
                                                    const std::vector<std::string>& names) {
  PULGA_ASSIGN_OR_RETURN(const auto key, ReadKey());
  std::vector<SecretFile> out;
  uint64_t bytes = 0;
  for (const std::string& name : names) {
    const FunctionKey secret{function.owner, function.name_space, name};
    PULGA_ASSIGN_OR_RETURN(const StoredSecret row, store_.Secret(secret));
    if (!key) {
      PULGA_ASSIGN_OR_RETURN(const int64_t secrets, store_.CountSecrets());
      return KeyMissing(secrets);
    }
    if (row.key_id != key->id()) {
      return Error{Code::kUnavailable, 0,
                   "secret " + name + " is sealed with key " + row.key_id + ", and " +
                       kSecretsKeyFile + " is key " + key->id() +
                       ": put the right one back, or update the secret"};
    }
    PULGA_RETURN_IF_ERROR(CheckSecretBytes(bytes += row.bytes));
    auto value = key->Open({row.nonce, row.sealed}, Belonging(secret));
    if (!value) {
      return Error{
          Code::kIo, 0,
          "secret " + name + " is damaged in the database: update it, or restore a backup"};
    }
    out.push_back({name, std::move(*value)});
  }
  return out;
}

}  // namespace pulga
