// DNS messages: questions of hostile functions, replies of hostile resolvers. The first byte says
// which resolver's question a reply is for; the rest is the message. Whatever is taken is answered
// by a message that means the same when it is read again.
#include <algorithm>

#include "base/check.h"
#include "net/dns_message.h"
#include "net/service_name.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/dns_bytes.h"

using namespace pulga;             // NOLINT: the target's functions must be global
using namespace pulga::dns_bytes;  // NOLINT

namespace {

const char* const kNames[] = {"api.example", "a.b.c.d.example", "x"};

void CheckQuery(std::string_view message) {
  const auto query = ParseDnsQuery(message);
  if (!query) {
    const auto error = MakeDnsFormatError(message);
    PULGA_CHECK(!error || error->size() == kDnsHeaderBytes);
    return;
  }
  PULGA_CHECK(query->name.size() <= 255 && message.find(query->question) != message.npos);
  PULGA_CHECK(std::none_of(query->name.begin(), query->name.end(),
                           [](char c) { return c >= 'A' && c <= 'Z'; }));
  const auto service = ParseServiceName(query->name);
  if (service && !service->is_gateway()) {
    PULGA_CHECK(IsDnsLabel(service->function) && IsDnsLabel(service->name_space));
  }
  const std::vector<Ipv4> addresses = {{0xCB007105}, {0xCB007106}};
  const std::string reply = MakeDnsReply(*query, DnsCode::kOk, addresses, 60);
  PULGA_CHECK(reply.size() <= kMaxDnsMessage);
  const auto back = ParseDnsReply(reply, *query);
  PULGA_CHECK(back && back->id == query->id && back->code == DnsCode::kOk);
  if (query->type != kDnsTypeA || query->type_class != kDnsClassInternet) return;
  PULGA_CHECK(back->addresses.size() == addresses.size());
  for (const DnsAddress& address : back->addresses) PULGA_CHECK(address.ttl == 60);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string query = QueryFor(kNames[0], kDnsTypeA);
  const std::string pointer("\xc0\x0c", 2);
  const std::string address("\xcb\0\x71\x05", 4);
  const std::string alias = Wire("web.example");
  const char first = '\0';
  return {first + query,
          first + QueryFor("A.B.C.D.Example", kDnsTypeAaaa),
          first + QueryFor("x", 255),
          first + QueryFor("Hello.Dev.svc.cluster.local"),
          first + ReplyTo(query, 1, Record(pointer, 1, 60, address)),
          first + ReplyTo(query, 2, Record(pointer, 5, 60, alias) + Record(alias, 1, 60, address)),
          first + ReplyTo(query, 1, Record(std::string("\xc0\x1d", 2), 1, 60, address)),
          first + ReplyTo(query, 3,
                          Record(pointer, 5, 60, pointer) +
                              Record(pointer, 28, 60, std::string(16, 'a')) +
                              Record(pointer, 1, 60, address))};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view message(reinterpret_cast<const char*>(data) + 1, size - 1);
  CheckQuery(message);
  const char* name = kNames[data[0] % std::size(kNames)];
  const auto asked = ParseDnsQuery(QueryFor(name, kDnsTypeA));
  PULGA_CHECK(asked && asked->name == name);
  const auto reply = ParseDnsReply(message, *asked);
  if (!reply) return 0;
  PULGA_CHECK(message.size() >= kDnsHeaderBytes);
  // Each address takes a record of at least fifteen bytes.
  PULGA_CHECK(reply->addresses.size() * 15 <= message.size());
  std::string copy(message);
  SetDnsId(copy, static_cast<uint16_t>(reply->id ^ 0xffff));
  const auto again = ParseDnsReply(copy, *asked);
  PULGA_CHECK(again && again->id == (reply->id ^ 0xffff));
  PULGA_CHECK(again->addresses.size() == reply->addresses.size());
  return 0;
}
