#include "runtime/image_json.h"

#include <nlohmann/json.hpp>

namespace pulga {
namespace {

using Json = nlohmann::json;

// Bytes that are no UTF-8 are kept by writing each byte as one code point.
std::string Widen(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xc0 | byte >> 6);
      out += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return out;
}

std::string Narrow(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80 || i + 1 == text.size()) {
      out += text[i];
    } else {
      out += static_cast<char>((byte & 0x03) << 6 | (text[++i] & 0x3f));
    }
  }
  return out;
}

Json Words(const std::vector<std::string>& words) {
  Json json = Json::array();
  for (const std::string& word : words) json.push_back(Widen(word));
  return json;
}

std::string TextOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? Narrow(it->get<std::string>()) : std::string();
}

std::vector<std::string> WordsOf(const Json& object, const char* name) {
  std::vector<std::string> words;
  const auto it = object.find(name);
  if (it == object.end() || !it->is_array()) return words;
  for (const Json& word : *it) {
    if (word.is_string()) words.push_back(Narrow(word.get<std::string>()));
  }
  return words;
}

}  // namespace

std::string ImageConfigToJson(const ImageConfig& config) {
  Json labels = Json::object();
  for (const auto& [name, value] : config.labels) labels[Widen(name)] = Widen(value);
  const Json json = {{"entrypoint", Words(config.entrypoint)},
                     {"cmd", Words(config.cmd)},
                     {"env", Words(config.env)},
                     {"working_dir", Widen(config.working_dir)},
                     {"user", Widen(config.user)},
                     {"exposed_ports", config.exposed_ports},
                     {"stop_signal", Widen(config.stop_signal)},
                     {"labels", labels}};
  return json.dump();
}

Result<ImageConfig> ImageConfigFromJson(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Error{Code::kIo, 0, "an image's stored configuration is damaged"};
  ImageConfig config;
  config.entrypoint = WordsOf(json, "entrypoint");
  config.cmd = WordsOf(json, "cmd");
  config.env = WordsOf(json, "env");
  config.working_dir = TextOf(json, "working_dir");
  config.user = TextOf(json, "user");
  config.stop_signal = TextOf(json, "stop_signal");
  for (const Json& port : json.value("exposed_ports", Json::array())) {
    if (port.is_number_unsigned()) config.exposed_ports.push_back(port.get<uint16_t>());
  }
  const auto labels = json.find("labels");
  if (labels == json.end() || !labels->is_object()) return config;
  for (const auto& [name, value] : labels->items()) {
    if (value.is_string()) config.labels[Narrow(name)] = Narrow(value.get<std::string>());
  }
  return config;
}

}  // namespace pulga
