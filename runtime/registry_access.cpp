#include "runtime/registry_access.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file_io.h"
#include "base/log.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr size_t kMaxAuthBytes = 256 * 1024;
constexpr size_t kMaxCaBytes = 512 * 1024;

Result<RegistryLogin> FindLogin(const RegistryAccess& access, const std::string& domain) {
  const auto file = OpenFile(access.auth_file, O_RDONLY | O_NONBLOCK);
  if (!file.ok()) {
    const bool absent = file.error().code == Code::kNotFound;
    if (absent && !access.auth_file_is_named) return RegistryLogin{};
    Error error = Prefix("credentials for registries", file.error());
    if (error.code == Code::kPermission) {
      error.message += ": it must belong to the user the daemon runs as";
    }
    return error;
  }
  struct stat st = {};
  if (fstat(file->get(), &st) == 0 && (st.st_mode & 077) != 0) {
    LogWarning("credentials for registries can be read by others: chmod 600 " + access.auth_file);
  }
  PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFd(file->get(), kMaxAuthBytes));
  PULGA_ASSIGN_OR_RETURN(const RegistryLogins logins, RegistryLogins::Parse(text));
  PULGA_RETURN_IF_ERROR(logins.CheckReadable(domain));
  return logins.Find(domain);
}

}  // namespace

Result<RegistryOptions> PrepareRegistry(const RegistryAccess& access, const std::string& ref,
                                        const std::optional<RegistryLogin>& login) {
  PULGA_ASSIGN_OR_RETURN(const ImageRef parsed, ParseImageRef(ref));
  RegistryOptions options;
  FetchOrder& order = options.order;
  order.ref = ref;
  if (login) {
    order.login = *login;
  } else {
    PULGA_ASSIGN_OR_RETURN(order.login, FindLogin(access, parsed.domain));
  }
  order.plain_http = access.plain_http;
  order.proxies = access.proxies;
  order.at_once = access.at_once;
  order.stall_timeout = access.stall_timeout;
  options.reserve_bytes = access.reserve_bytes;
  if (!access.ca_file.empty()) {
    auto pem = ReadFile(access.ca_file, kMaxCaBytes);
    if (!pem.ok()) return Prefix("certificate authorities of registries", pem.error());
    options.extra_ca = std::move(*pem);
  }
  return options;
}

}  // namespace pulga
