#include "net/dns_message.h"

#include <algorithm>

#include "net/big_endian.h"

namespace pulga {
namespace {

constexpr uint16_t kReplyFlag = 0x8000;
constexpr uint16_t kOpcodeMask = 0x7800;
constexpr uint16_t kTruncatedFlag = 0x0200;
constexpr uint16_t kRecursionDesired = 0x0100;
constexpr uint16_t kRecursionAvailable = 0x0080;
constexpr size_t kMaxName = 253;
constexpr int kMaxPointers = 32;
constexpr size_t kMaxRecords = 256;
constexpr uint32_t kMaxTtl = 0x7fffffff;

class Reader {
 public:
  explicit Reader(std::string_view message) : message_(message) {}
  bool ok() const { return ok_; }
  size_t at() const { return at_; }
  uint16_t Take16() { return static_cast<uint16_t>(Take(2)); }
  uint32_t Take32() { return Take(4); }
  void Skip(size_t bytes) {
    if (bytes > message_.size() - at_) ok_ = false;
    if (ok_) at_ += bytes;
  }
  // Follows pointers, which must lead backwards.
  std::string TakeName() {
    std::string name;
    size_t at = at_;
    size_t limit = at_;  // a pointer leads before this
    bool jumped = false;
    for (int pointers = 0; ok_;) {
      if (at >= message_.size()) break;
      const uint8_t length = Byte(at);
      if ((length & 0xc0) == 0xc0) {
        if (at + 1 >= message_.size() || ++pointers > kMaxPointers) break;
        const size_t target = static_cast<size_t>(length & 0x3f) << 8 | Byte(at + 1);
        if (target >= limit) break;
        if (!jumped) at_ = at + 2;
        jumped = true;
        limit = at = target;
        continue;
      }
      if (length > 63 || at + 1 + length > message_.size()) break;
      if (length == 0) {
        if (!jumped) at_ = at + 1;
        return name;
      }
      if (!AppendLabel(message_.substr(at + 1, length), name)) break;
      at += 1U + length;
    }
    ok_ = false;
    return {};
  }

 private:
  uint8_t Byte(size_t at) const { return static_cast<uint8_t>(message_[at]); }
  uint32_t Take(size_t bytes) {
    uint32_t value = 0;
    const size_t begin = at_;
    Skip(bytes);
    if (!ok_) return 0;
    for (size_t i = 0; i < bytes; ++i) value = value << 8 | Byte(begin + i);
    return value;
  }
  // A dot or a control character inside a label would make two names look the same.
  static bool AppendLabel(std::string_view label, std::string& name) {
    if (!name.empty()) name += '.';
    for (const char c : label) {
      if (c == '.' || static_cast<unsigned char>(c) <= ' ' || static_cast<unsigned char>(c) > '~') {
        return false;
      }
      name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    return name.size() <= kMaxName;
  }

  std::string_view message_;
  size_t at_ = 0;
  bool ok_ = true;
};

struct Header {
  uint16_t id, flags, questions, answers, authorities, additional;
};

Header TakeHeader(Reader& reader) {
  Header out = {};
  for (uint16_t* field :
       {&out.id, &out.flags, &out.questions, &out.answers, &out.authorities, &out.additional}) {
    *field = reader.Take16();
  }
  return out;
}

// The names that mean the question's, aliases followed so far.
struct Chain {
  std::vector<std::string> names;
  uint32_t ttl = kMaxTtl;
  bool Has(const std::string& name) const {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
};

void TakeRecord(Reader& reader, Chain& chain, DnsReply& reply) {
  const std::string owner = reader.TakeName();
  const uint16_t type = reader.Take16();
  const uint16_t type_class = reader.Take16();
  const uint32_t ttl = std::min(reader.Take32(), kMaxTtl);
  const uint16_t size = reader.Take16();
  const size_t begin = reader.at();
  const bool ours = reader.ok() && type_class == kDnsClassInternet && chain.Has(owner);
  if (ours && type == kDnsTypeCname) {
    Reader inside = reader;
    chain.names.push_back(inside.TakeName());
    chain.ttl = std::min(chain.ttl, ttl);
    if (!inside.ok() || inside.at() != begin + size) reader.Skip(kMaxDnsMessage + 1);
  } else if (ours && type == kDnsTypeA && size == 4) {
    Reader inside = reader;
    const Ipv4 address{inside.Take32()};
    reply.addresses.push_back({address, std::min(chain.ttl, ttl)});
  }
  reader.Skip(size);
}

}  // namespace

std::optional<DnsQuery> ParseDnsQuery(std::string_view message) {
  Reader reader(message);
  const Header header = TakeHeader(reader);
  if (!reader.ok() || (header.flags & (kReplyFlag | kOpcodeMask | kTruncatedFlag)) != 0 ||
      header.questions != 1 || header.answers != 0 || header.authorities != 0) {
    return std::nullopt;
  }
  DnsQuery query;
  query.id = header.id;
  query.recursion_desired = (header.flags & kRecursionDesired) != 0;
  query.name = reader.TakeName();
  query.type = reader.Take16();
  query.type_class = reader.Take16();
  if (!reader.ok()) return std::nullopt;
  // A compressed name would lead into the header, and mean another one in the reply.
  const size_t plain = query.name.empty() ? 1 : query.name.size() + 2;
  if (reader.at() != kDnsHeaderBytes + plain + 4) return std::nullopt;
  query.question = std::string(message.substr(kDnsHeaderBytes, reader.at() - kDnsHeaderBytes));
  return query;
}

std::string MakeDnsReply(const DnsQuery& query, DnsCode code, const std::vector<Ipv4>& addresses,
                         uint32_t ttl) {
  std::string out;
  Put16(out, query.id);
  Put16(out, kReplyFlag | kRecursionAvailable | (query.recursion_desired ? kRecursionDesired : 0U) |
                 static_cast<uint32_t>(code));
  Put16(out, 1);
  Put16(out, static_cast<uint32_t>(addresses.size()));
  Put32(out, 0);
  out += query.question;
  for (const Ipv4 address : addresses) {
    Put16(out, 0xc000 | kDnsHeaderBytes);  // the question's name
    Put16(out, kDnsTypeA);
    Put16(out, kDnsClassInternet);
    Put32(out, ttl);
    Put16(out, 4);
    Put32(out, address.value);
  }
  return out;
}

std::optional<std::string> MakeDnsFormatError(std::string_view message) {
  Reader reader(message);
  const Header header = TakeHeader(reader);
  if (!reader.ok() || (header.flags & kReplyFlag) != 0) return std::nullopt;
  const bool other = (header.flags & kOpcodeMask) != 0;
  std::string out;
  Put16(out, header.id);
  Put16(out, kReplyFlag | (header.flags & kOpcodeMask) |
                 static_cast<uint32_t>(other ? DnsCode::kNotImplemented : DnsCode::kBadFormat));
  out.append(8, '\0');
  return out;
}

std::optional<DnsReply> ParseDnsReply(std::string_view message, const DnsQuery& query) {
  Reader reader(message);
  const Header header = TakeHeader(reader);
  if (!reader.ok() || (header.flags & kReplyFlag) == 0 || (header.flags & kOpcodeMask) != 0) {
    return std::nullopt;
  }
  DnsReply reply;
  reply.id = header.id;
  reply.truncated = (header.flags & kTruncatedFlag) != 0;
  reply.code = static_cast<DnsCode>(header.flags & 15);
  if (header.questions != 1) return std::nullopt;
  const std::string name = reader.TakeName();
  const uint16_t type = reader.Take16();
  const uint16_t type_class = reader.Take16();
  if (!reader.ok() || name != query.name || type != query.type || type_class != query.type_class ||
      header.answers > kMaxRecords) {
    return std::nullopt;
  }
  Chain chain;
  chain.names.push_back(query.name);
  for (uint16_t i = 0; i < header.answers && reader.ok(); ++i) TakeRecord(reader, chain, reply);
  // A truncated reply may end anywhere; nothing in it is used then.
  if (reply.truncated) reply.addresses.clear();
  if (!reader.ok() && !reply.truncated) return std::nullopt;
  return reply;
}

void SetDnsId(std::string& message, uint16_t id) {
  if (message.size() < 2) return;
  message[0] = static_cast<char>(id >> 8);
  message[1] = static_cast<char>(id & 255);
}

}  // namespace pulga
