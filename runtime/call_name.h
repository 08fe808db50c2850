// How a call names its function, on /function and /async-function: "name" or "name.namespace"; the
// last dot separates. Says nothing about whether such a name can be. Pure.
#pragma once

#include <string>

#include "runtime/function_spec.h"

namespace pulga {

// `name_space`: of a name that has none.
inline FunctionKey ParseCallName(const std::string& text,
                                 const std::string& name_space = kDefaultNamespace) {
  FunctionKey key;
  const size_t dot = text.rfind('.');
  key.name = text.substr(0, dot);
  key.name_space = dot == std::string::npos ? name_space : text.substr(dot + 1);
  return key;
}

inline Status ValidateCallName(const FunctionKey& key) {
  PULGA_RETURN_IF_ERROR(ValidateFunctionName(key.name));
  return ValidateFunctionName(key.name_space);
}

}  // namespace pulga
