// probe's deeds on a network. Included by probe_deeds.h, once.
#pragma once

#include "tiny.h"

struct probe_address {
  uint16_t family;
  uint8_t port[2];
  uint8_t host[4];
  uint8_t zero[8];
};

// "203.0.113.5" and "9000".
static struct probe_address probe_address_of(const char* host, const char* port) {
  struct probe_address out = {2, {0}, {0}, {0}};
  const long number = to_number(port);
  out.port[0] = (uint8_t)(number >> 8);
  out.port[1] = (uint8_t)number;
  for (int i = 0; i < 4; ++i) {
    out.host[i] = (uint8_t)to_number(host);
    while (*host >= '0' && *host <= '9') ++host;
    if (*host == '.') ++host;
  }
  return out;
}

// udp-ask ADDRESS PORT TEXT: sends a datagram and says what comes back within two seconds.
static int do_udp_ask(char** words, int count) {
  char answer[2048];
  if (count < 3) return 2;
  const struct probe_address to = probe_address_of(words[0], words[1]);
  const long fd = sys(__NR_socket, 2, 2, 0, 0);
  if (fd < 0) return 3;
  const struct tiny_time patience = {2, 0};
  sys6(__NR_setsockopt, fd, 1, 20, (long)&patience, sizeof patience, 0);  // SO_RCVTIMEO
  if (sys(__NR_connect, fd, &to, sizeof to, 0) < 0) return 4;
  if (sys_write((int)fd, words[2], length(words[2])) < 0) return 5;
  const long n = sys_read((int)fd, answer, sizeof answer);
  if (n < 0) return 6;
  return write_all(1, answer, (size_t)n) == 0 ? 0 : 7;
}
