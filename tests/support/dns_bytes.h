// DNS messages by hand, as questioners and resolvers write them.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>

#include "net/dns_message.h"

namespace pulga::dns_bytes {

inline std::string Bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}

inline std::string Wire(const std::string& name) {
  std::string out;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    out += static_cast<char>(end - at);
    out += name.substr(at, end - at);
    at = end + 1;
  }
  return out + '\0';
}

// Types below 256.
inline std::string QueryFor(const std::string& name, int type = kDnsTypeA) {
  return Bytes({0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0}) + Wire(name) +
         Bytes({0, type, 0, 1});
}

// `owner` as it goes over the wire: a name or a pointer to one.
inline std::string Record(const std::string& owner, int type, int ttl, const std::string& data) {
  return owner + Bytes({0, type, 0, 1, 0, 0, 0, ttl, 0, static_cast<int>(data.size())}) + data;
}

inline std::string ReplyTo(const std::string& query, int answers, const std::string& records) {
  std::string out = query;
  out[2] = static_cast<char>(0x81);
  out[3] = static_cast<char>(0x80);
  out[7] = static_cast<char>(answers);
  return out + records;
}

}  // namespace pulga::dns_bytes
