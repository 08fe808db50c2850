// The frames protocol (docs/frames.md) for a program of this folder: what is on the wire, and one
// buffer each way. A program reads frames with next_frame() until there is none, answers by
// put_frame(), and leaves the rest to flush_frames() and wait_frames().
#pragma once

#include <linux/errno.h>

#include "tiny.h"

enum frame_type { kHello = 1, kHead = 2, kBody = 3, kCredit = 4, kCancel = 5 };
enum { kEnd = 1, kHeaderSize = 12, kMaxPayload = 65536, kFrameRoom = 4 * kMaxPayload };

struct frame {
  uint32_t size;
  uint32_t id;
  uint8_t type;
  uint8_t flags;
  const char* payload;
};

static int frames_fd = -1;
static struct {
  size_t begin, size;
  char bytes[kFrameRoom];
} frames_in, frames_out;

static uint32_t number_at(const char* p, size_t bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= (uint32_t)(unsigned char)p[i] << (8 * i);
  return value;
}

static void put_number_at(char* p, uint32_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) p[i] = (char)(value >> (8 * i));
}

// Payload bytes that one more frame may have now.
static size_t frame_room(void) {
  const size_t left = kFrameRoom - frames_out.size;
  if (left <= kHeaderSize) return 0;
  return left - kHeaderSize < kMaxPayload ? left - kHeaderSize : kMaxPayload;
}

// Where the payload goes; the caller has looked at frame_room().
static char* begin_frame(uint32_t id, enum frame_type type, int flags, size_t size) {
  char* at = frames_out.bytes + frames_out.size;
  put_number_at(at, (uint32_t)size, 4);
  put_number_at(at + 4, id, 4);
  at[8] = (char)type;
  at[9] = (char)flags;
  put_number_at(at + 10, 0, 2);
  frames_out.size += kHeaderSize + size;
  return at + kHeaderSize;
}

static void put_frame(uint32_t id, enum frame_type type, int flags, const char* from, size_t n) {
  memcpy(begin_frame(id, type, flags, n), from, n);
}

// Our side's first words: how much of each request's body may come unasked.
static void put_hello(uint32_t window) {
  char* at = begin_frame(0, kHello, 0, 16);
  memcpy(at, "PFRM", 4);
  put_number_at(at + 4, 1, 4);
  put_number_at(at + 8, window, 4);
  put_number_at(at + 12, 0, 4);
}

static void put_credit(uint32_t id, uint32_t bytes) {
  put_number_at(begin_frame(id, kCredit, 0, 4), bytes, 4);
}

// A string of a head: 16 bits of length, then the bytes. False at the end.
static int next_string(const char** at, const char* end, const char** text, size_t* size) {
  if (end - *at < 2) return 0;
  *size = number_at(*at, 2);
  *text = *at + 2;
  *at += 2 + *size;
  return *at <= end;
}

static void put_string(struct text* t, const char* from, size_t n) {
  char size[2];
  put_number_at(size, (uint32_t)n, 2);
  put_bytes(t, size, 2);
  put_bytes(t, from, n);
}

// False: no whole frame is there.
static int next_frame(struct frame* f) {
  const char* at = frames_in.bytes + frames_in.begin;
  const size_t left = frames_in.size - frames_in.begin;
  if (left < kHeaderSize) return 0;
  f->size = number_at(at, 4);
  if (f->size > kMaxPayload) sys_exit(3);  // the daemon sends no such thing
  if (left < kHeaderSize + f->size) return 0;
  f->id = number_at(at + 4, 4);
  f->type = (uint8_t)at[8];
  f->flags = (uint8_t)at[9];
  f->payload = at + kHeaderSize;
  frames_in.begin += kHeaderSize + f->size;
  return 1;
}

// Sends what the socket takes now.
static void flush_frames(void) {
  size_t sent = 0;
  while (sent < frames_out.size) {
    const long n = sys6(__NR_sendto, frames_fd, (long)(frames_out.bytes + sent),
                        (long)(frames_out.size - sent), 0x4040 /* NOSIGNAL | DONTWAIT */, 0, 0);
    if (n == -EINTR) continue;
    if (n <= 0) break;
    sent += (size_t)n;
  }
  frames_out.size -= sent;
  if (frames_out.size > 0) memmove(frames_out.bytes, frames_out.bytes + sent, frames_out.size);
}

// Waits at most that long (-1: for ever) and reads what is there. False: the daemon has closed.
static int wait_frames(long ms) {
  const size_t left = frames_in.size - frames_in.begin;
  const size_t room = kFrameRoom - left;
  memmove(frames_in.bytes, frames_in.bytes + frames_in.begin, left);
  frames_in.begin = 0;
  frames_in.size = left;
  const int only_read = ms < 0 && frames_out.size == 0;  // then reading waits by itself
  struct {
    int fd;
    short events, revents;
  } poll = {frames_fd, (short)((room > 0 ? 1 : 0) | (frames_out.size > 0 ? 4 : 0)), 0};
  struct tiny_time limit = {ms / 1000, ms % 1000 * 1000000};
  if (!only_read) sys6(__NR_ppoll, (long)&poll, 1, ms < 0 ? 0 : (long)&limit, 0, 0, 0);
  if (room == 0) return 1;
  const long n = sys6(__NR_recvfrom, frames_fd, (long)(frames_in.bytes + left), (long)room,
                      only_read ? 0 : 0x40 /* MSG_DONTWAIT */, 0, 0);
  if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR)) return 0;
  if (n > 0) frames_in.size += (size_t)n;
  return 1;
}
