// As much of DNS messages as a forwarding stub needs: read one question, write short answers, find
// the addresses in somebody else's reply. Every length and pointer of a message is checked; names
// come out in lower case, without a final dot. Pure. Source: RFC 1035, RFC 2181, RFC 6891.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/ipv4.h"

namespace pulga {

inline constexpr size_t kMaxDnsMessage = 65535;
inline constexpr size_t kDnsHeaderBytes = 12;

enum class DnsCode : uint8_t {
  kOk = 0,
  kBadFormat = 1,
  kServerFailed = 2,
  kNoSuchName = 3,
  kNotImplemented = 4,
  kRefused = 5,
};
inline constexpr uint16_t kDnsTypeA = 1;
inline constexpr uint16_t kDnsTypeCname = 5;
inline constexpr uint16_t kDnsTypeAaaa = 28;
inline constexpr uint16_t kDnsClassInternet = 1;

struct DnsQuery {
  uint16_t id = 0;
  bool recursion_desired = false;
  std::string name;
  uint16_t type = 0;
  uint16_t type_class = 0;
  std::string question;  // as it stands in the message
};

// A standard query with one question; nothing for anything else.
std::optional<DnsQuery> ParseDnsQuery(std::string_view message);
// A reply to `query` with these addresses, or none.
std::string MakeDnsReply(const DnsQuery& query, DnsCode code,
                         const std::vector<Ipv4>& addresses = {}, uint32_t ttl = 0);
// For what could not be read: an answer is owed all the same, if there is a header to answer to.
std::optional<std::string> MakeDnsFormatError(std::string_view message);

struct DnsAddress {
  Ipv4 address;
  uint32_t ttl = 0;  // the least on the way from the question's name
};
struct DnsReply {
  uint16_t id = 0;
  bool truncated = false;
  DnsCode code = DnsCode::kOk;
  std::vector<DnsAddress> addresses;  // of the question's name, aliases followed
};
// Nothing when it is no well-formed reply to that question.
std::optional<DnsReply> ParseDnsReply(std::string_view message, const DnsQuery& query);

void SetDnsId(std::string& message, uint16_t id);

}  // namespace pulga
