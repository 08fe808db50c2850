#include "api/cli/stack_export.h"

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "api/cli/reply_json.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kWatchdogPort = 8080;

// Of JSON's "\uXXXX" at `at`, its four digits.
unsigned long UnitAt(const std::string& json, size_t at) {
  return std::stoul(json.substr(at, 4), nullptr, 16);
}

// As YAML reads it in double quotes. faas-cli substitutes in the file first ("${X}", "$$", and two
// backslashes), so neither a '$' nor two backslashes are written; YAML knows no surrogates.
std::string Quoted(const std::string& text) {
  const std::string json =
      Json(text).dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  std::string out;
  for (size_t i = 0; i < json.size(); ++i) {
    if (json[i] == '$') {
      out += "\\u0024";
    } else if (json[i] != '\\') {
      out += json[i];
    } else if (json[++i] == '\\') {
      out += "\\u005c";
    } else if (json[i] != 'u') {
      out += {'\\', json[i]};
    } else if (const unsigned long high = UnitAt(json, i + 1); high < 0xd800 || high > 0xdbff) {
      out += "\\u" + json.substr(i + 1, 4);
      i += 4;
    } else {  // and "\uYYYY" behind it: the other half
      char code[16];
      snprintf(code, sizeof code, "\\U%08lx",
               0x10000 + ((high - 0xd800) << 10) + (UnitAt(json, i + 7) - 0xdc00));
      out += code;
      i += 10;
    }
  }
  return out;
}

void AddText(const char* field, const std::string& text, std::string* out) {
  if (!text.empty()) *out += std::string("    ") + field + ": " + Quoted(text) + "\n";
}

void AddTexts(const char* field, const Json& list, std::string* out) {
  if (!list.is_array() || list.empty()) return;
  *out += std::string("    ") + field + ":\n";
  for (const Json& item : list) {
    if (item.is_string()) *out += "      - " + Quoted(item.get<std::string>()) + "\n";
  }
}

void AddMap(const char* field, const Json& map, std::string* out) {
  if (!map.is_object() || map.empty()) return;
  *out += std::string("    ") + field + ":\n";
  for (const auto& [name, value] : map.items()) {
    if (!value.is_string()) continue;
    *out += "      " + Quoted(name) + ": " + Quoted(value.get<std::string>()) + "\n";
  }
}

void AddFunction(const Json& shown, std::string* out) {
  const std::string name = TextIn(shown, "name");
  *out += "  " + Quoted(name) + ":\n";
  *out += "    lang: dockerfile\n    skip_build: true\n";
  AddText("namespace", TextIn(shown, "namespace"), out);
  AddText("image", TextIn(shown, "image"), out);
  AddText("fprocess", TextIn(shown, "envProcess"), out);
  AddMap("environment", Field(shown, "envVars"), out);
  AddTexts("secrets", Field(shown, "secrets"), out);
  AddTexts("constraints", Field(shown, "constraints"), out);
  Json labels = Field(shown, "labels");
  if (TextIn(labels, "faas_function") == name) labels.erase("faas_function");  // they add their own
  AddMap("labels", labels, out);
  AddMap("annotations", Field(shown, "annotations"), out);
  AddMap("limits", Field(shown, "limits"), out);
  AddMap("requests", Field(shown, "requests"), out);
  const Json& read_only = Field(shown, "readOnlyRootFilesystem");
  if (read_only.is_boolean() && read_only.get<bool>())
    *out += "    readonly_root_filesystem: true\n";
}

// "" = it may move.
std::string Hindrance(const Json& native) {
  const std::string mode = TextIn(native, "mode");
  if (mode != "http") return "mode " + mode + ": there functions are servers on port 8080";
  const uint64_t port = NumberIn(native, "port");
  if (port != kWatchdogPort) return "it listens on port " + std::to_string(port) + ", not on 8080";
  const Json& spec = Field(native, "spec");
  for (const char* field : {"command", "args"}) {
    if (!ListIn(spec, field).empty()) return std::string("its spec has ") + field + " of its own";
  }
  if (!TextIn(spec, "user").empty()) return "its spec has a user of its own";
  for (const char* field : {"volumes", "devices", "capabilities"}) {
    if (!Field(spec, field).empty()) return std::string("it has ") + field + " of this board";
  }
  return "";
}

const Json* FindNative(const Json& list, const Json& shown) {
  for (const Json& native : list) {
    const bool same = TextIn(native, "name") == TextIn(shown, "name") &&
                      TextIn(native, "namespace") == TextIn(shown, "namespace");
    if (same) return &native;
  }
  return nullptr;
}

}  // namespace

StackExport MakeStack(const ShownFunctions& functions, const std::string& gateway_url) {
  StackExport out;
  out.yaml = "version: 1.0\nprovider:\n  name: openfaas\n  gateway: " + Quoted(gateway_url) +
             "\nfunctions:";
  std::string entries;
  std::map<std::string, std::string> taken;  // name -> namespace
  for (const Json& shown : functions.gateway) {
    const Json* native = FindNative(functions.native, shown);
    if (native == nullptr) continue;  // removed between the two requests
    const std::string name = TextIn(shown, "name");
    std::string hindrance = Hindrance(*native);
    if (hindrance.empty()) {
      const auto [first, is_new] = taken.emplace(name, TextIn(shown, "namespace"));
      if (!is_new) {
        hindrance = "its name is another's, of namespace " + first->second + ": export its own, " +
                    TextIn(shown, "namespace") + ", with -n";
      }
    }
    if (hindrance.empty()) {
      AddFunction(shown, &entries);
    } else {
      out.left_out.push_back(name + ": " + hindrance);
    }
  }
  out.yaml += entries.empty() ? " {}\n" : "\n" + entries;
  return out;
}

}  // namespace pulga::cli
