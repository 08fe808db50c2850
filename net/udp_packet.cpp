#include "net/udp_packet.h"

#include "net/big_endian.h"

namespace pulga {
namespace {

constexpr uint8_t kUdp = 17;
constexpr uint8_t kHops = 64;

uint32_t SumOf(std::string_view bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])) << 8;
    if (i + 1 < bytes.size()) sum += static_cast<uint8_t>(bytes[i + 1]);
  }
  return sum;
}

// 0 would mean that there is none.
uint16_t Checksum(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  const auto folded = static_cast<uint16_t>(~sum);
  return folded == 0 ? 0xffff : folded;
}

}  // namespace

std::string MakeUdpPacket(const UdpEnd& from, const UdpEnd& to, std::string_view payload) {
  const uint32_t size = 8 + static_cast<uint32_t>(payload.size());
  std::string pseudo;
  Put32(pseudo, from.address.value);
  Put32(pseudo, to.address.value);
  Put16(pseudo, kUdp);
  Put16(pseudo, size);
  std::string udp;
  Put16(udp, from.port);
  Put16(udp, to.port);
  Put16(udp, size);
  const uint16_t sum = Checksum(SumOf(pseudo) + SumOf(udp) + SumOf(payload));
  Put16(udp, sum);
  std::string out;
  out += static_cast<char>(0x45);
  out += '\0';
  Put16(out, 20 + size);
  Put32(out, 0);  // id, flags, offset
  out += static_cast<char>(kHops);
  out += static_cast<char>(kUdp);
  Put16(out, 0);
  Put32(out, from.address.value);
  Put32(out, to.address.value);
  return out + udp + std::string(payload);
}

}  // namespace pulga
