#include "sandbox/exec_arguments.h"

#include <cstring>

namespace pulga {
namespace {

// Points out[0..count) at the NUL-terminated strings that fill [at, end); ends with a null pointer.
bool PointAt(char* at, const char* end, uint32_t count, char** out) {
  for (uint32_t i = 0; i < count; ++i) {
    const size_t room = static_cast<size_t>(end - at);
    char* nul = static_cast<char*>(memchr(at, '\0', room));
    if (nul == nullptr) return false;
    out[i] = at;
    at = nul + 1;
  }
  out[count] = nullptr;
  return at == end;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + kMaxExtraStrings + 1);
  for (std::string& s : strings) out.push_back(s.data());
  out.resize(strings.size() + kMaxExtraStrings + 1);
  return out;
}

}  // namespace

ExecArguments::ExecArguments(std::vector<std::string>& argv, std::vector<std::string>& env)
    : base_argc_(argv.size()),
      base_envc_(env.size()),
      argv_(Pointers(argv)),
      envp_(Pointers(env)) {}

bool ExecArguments::Assemble(const SpawnRequest& request, char* blob, size_t size) {
  if (request.envc > kMaxExtraStrings || request.argc > kMaxExtraStrings) return false;
  if (request.env_bytes > size || request.arg_bytes != size - request.env_bytes) return false;
  char* const args = blob + request.env_bytes;
  return PointAt(blob, args, request.envc, envp_.data() + base_envc_) &&
         PointAt(args, blob + size, request.argc, argv_.data() + base_argc_);
}

}  // namespace pulga
