// http-hello: a small HTTP/1.1 server on $PORT (8080), one thread, epoll, 512 connections.
//
//   /                     greeting                /echo (or any request with a body)  the body back
//   /about                method, path, query     /headers      the request head, as received
//   /status/NNN           that status             /sleep/MS     answers after MS
//   /sink                 answers once the body has been read
//   /big/N                N bytes, chunked        /drip/N/MS    N chunks, MS apart
//   /close                answers and closes      /hang         never answers
//   /env                  the environment         /stats        open, served, cancelled counts
//   /bad/status|length|chunk|header|cut|early     malformed replies
//   /exit/N  /crash  /alloc/MIB  /cpu/MS          misdeeds of the whole process
//   /upgrade/NAME  switches to the protocol NAME, asked for or not, and sends all bytes back; after
//                  "bye" it closes
//   /spin        answers, and leaves a child behind that works for ever
//
// LISTEN_UNIX=PATH listens there instead. START_DELAY_MS waits before listening; NEVER_LISTEN=1
// sleeps for ever. COLD_MS: for so long it answers as an of-watchdog does whose own server does not
// listen yet. LOCKED_MS: for so long /_/health says 503, as of a watchdog without its lock file.
#include <linux/errno.h>
#include <linux/eventpoll.h>

#include "tiny.h"

enum { kMaxConnections = 512, kInSize = 16384, kOutSize = 32768, kSlack = 64 };
enum phase { kHead, kEcho, kSink, kBig, kDrip, kSleep, kHang, kFinish, kTunnel };
enum framing { kNone, kLength, kChunkSize, kChunkData, kChunkEnd, kTrailer };

struct connection {
  int fd;
  enum phase phase;
  enum framing framing;  // of the request body not yet read
  int close_after;
  int chunked_reply;
  int moved;       // any byte taken or sent in this step
  long body_left;  // of the body, or of the chunk
  long left;       // bytes or drips still to send
  long drip_ms;
  int64_t due;  // kSleep, kDrip: when to go on
  size_t in_size, out_size, out_sent;
  char in[kInSize];
  char out[kOutSize];
};

static struct connection connections[kMaxConnections];
static long open_count, served_count, cancelled_count;
static int epoll_fd;
static int64_t cold_until, locked_until;
static char** environment;

static struct text out_of(struct connection* c) {
  const struct text t = {c->out, c->out_size, kOutSize};
  return t;
}

static size_t out_room(const struct connection* c) { return kOutSize - c->out_size; }

static void add_out(struct connection* c, const char* from, size_t n) {
  struct text t = out_of(c);
  put_bytes(&t, from, n);
  c->out_size = t.size;
}

static void drop(struct connection* c) {
  if (c->phase != kHead && c->phase != kFinish) ++cancelled_count;
  sys_close(c->fd);
  c->fd = 0;
  --open_count;
}

// --- replies ---

static void reply_head(struct connection* c, long status, const char* type, long size) {
  struct text t = out_of(c);
  put(&t, "HTTP/1.1 ");
  put_number(&t, status);
  put(&t, " Reply\r\nContent-Type: ");
  put(&t, type);
  put(&t, "\r\nX-Served-By: http-hello\r\n");
  c->chunked_reply = size < 0;
  if (size < 0) {
    put(&t, "Transfer-Encoding: chunked\r\n");
  } else {
    put(&t, "Content-Length: ");
    put_number(&t, size);
    put(&t, "\r\n");
  }
  if (c->close_after) put(&t, "Connection: close\r\n");
  put(&t, "\r\n");
  c->out_size = t.size;
}

static void reply(struct connection* c, long status, const char* body, size_t size) {
  const int head_only = starts_with(c->in, "HEAD ");
  const int bodiless = status == 204 || status == 304;
  reply_head(c, status, "text/plain", bodiless ? 0 : (long)size);
  if (!head_only && !bodiless) add_out(c, body, size);
  c->phase = kFinish;
}

static void reply_text(struct connection* c, long status, const char* body) {
  reply(c, status, body, length(body));
}

static void raw(struct connection* c, const char* bytes) {
  add_out(c, bytes, length(bytes));
  c->close_after = 1;
  c->phase = kFinish;
}

static void reply_bad(struct connection* c, const char* how) {
  if (equal(how, "status")) return raw(c, "HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n");
  if (equal(how, "length")) {
    return raw(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello");
  }
  if (equal(how, "chunk")) {
    return raw(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n");
  }
  if (equal(how, "header")) return raw(c, "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n");
  if (equal(how, "cut")) return raw(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off");
  if (equal(how, "early")) return raw(c, "");
  raw(c, "this is not HTTP at all\r\n\r\n");
}

static void reply_env(struct connection* c) {
  static char room[16384];
  struct text t = {room, 0, sizeof room};
  for (char** at = environment; *at != NULL; ++at) {
    put(&t, *at);
    put(&t, "\n");
  }
  reply(c, 200, t.at, t.size);
}

static void reply_stats(struct connection* c) {
  char room[160];
  struct text t = {room, 0, sizeof room};
  put(&t, "{\"open\":");
  put_number(&t, open_count);
  put(&t, ",\"served\":");
  put_number(&t, served_count);
  put(&t, ",\"cancelled\":");
  put_number(&t, cancelled_count);
  put(&t, "}\n");
  reply(c, 200, t.at, t.size);
}

static void reply_about(struct connection* c, size_t line_end) {
  char room[2048];
  struct text t = {room, 0, sizeof room};
  size_t end = line_end;
  while (end > 0 && c->in[end] != ' ') --end;  // drops the version
  put_bytes(&t, c->in, end);
  put(&t, "\n");
  reply(c, 200, t.at, t.size);
}

// --- misdeeds of the whole process ---

static void burn(long ms) {
  const int64_t until = now_ms() + ms;
  while (now_ms() < until) {
  }
}

// As PID 1 it cannot send itself a signal that kills; a fault does.
static void crash(void) {
  char* volatile nowhere = (char*)8;
  *nowhere = 1;
}

static void allocate(long mib) {
  const size_t bytes = (size_t)mib << 20;
  char* at = sys_map(bytes);
  for (size_t i = 0; at != NULL && i < bytes; i += 4096) at[i] = 1;
}

static void leave_a_child(void) {
  if (sys_fork() != 0) return;
  for (volatile unsigned long turns = 0;; ++turns) {
  }
}

// --- requests ---

// The number after the n-th slash of "/big/100/20".
static long path_number(const char* path, int n) {
  for (; *path != '\0'; ++path) {
    if (*path == '/' && n-- == 0) return to_number(path + 1);
  }
  return 0;
}

static void wait_then(struct connection* c, enum phase phase, long ms) {
  c->phase = phase;
  c->due = now_ms() + ms;
}

static void start_stream(struct connection* c, enum phase phase, const char* path) {
  c->left = path_number(path, 1);
  c->drip_ms = path_number(path, 2);
  reply_head(c, 200, "application/octet-stream", -1);
  wait_then(c, phase, 0);
}

static void start_echo(struct connection* c) {
  const int known = c->framing == kLength;
  reply_head(c, 200, "application/octet-stream", known ? c->body_left : -1);
  c->phase = kEcho;
}

static void reply_cold(struct connection* c) {
  const char* bytes =
      "HTTP/1.1 500 Internal Server Error\r\nX-OpenFaaS-Internal: of-watchdog\r\n"
      "Content-Length: 0\r\n\r\n";
  add_out(c, bytes, length(bytes));
  c->phase = kFinish;
}

static void switch_to(struct connection* c, const char* protocol) {
  struct text t = out_of(c);
  put(&t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ");
  put(&t, protocol);
  put(&t, "\r\n\r\n");
  c->out_size = t.size;
  c->phase = kTunnel;
}

static void route(struct connection* c, const char* path, size_t line_end, size_t head_end) {
  if (now_ms() < cold_until) return reply_cold(c);
  if (now_ms() < locked_until && equal(path, "/_/health")) return reply_text(c, 503, "locked\n");
  if (starts_with(path, "/status/")) return reply_text(c, path_number(path, 1), "as asked\n");
  if (starts_with(path, "/sleep/")) return wait_then(c, kSleep, path_number(path, 1));
  if (starts_with(path, "/big/")) return start_stream(c, kBig, path);
  if (starts_with(path, "/drip/")) return start_stream(c, kDrip, path);
  if (starts_with(path, "/bad")) return reply_bad(c, starts_with(path, "/bad/") ? path + 5 : "");
  if (starts_with(path, "/exit/")) sys_exit((int)path_number(path, 1));
  if (equal(path, "/crash")) crash();
  if (starts_with(path, "/tell/")) say(2, path + 6), say(2, "\n");
  if (starts_with(path, "/alloc/")) allocate(path_number(path, 1));
  if (starts_with(path, "/cpu/")) burn(path_number(path, 1));
  if (equal(path, "/spin")) leave_a_child();
  if (starts_with(path, "/upgrade/")) return switch_to(c, path + 9);
  if (equal(path, "/hang")) return wait_then(c, kHang, 0);
  if (equal(path, "/env")) return reply_env(c);
  if (equal(path, "/stats")) return reply_stats(c);
  if (equal(path, "/about")) return reply_about(c, line_end);
  if (equal(path, "/headers")) return reply(c, 200, c->in, head_end);
  if (equal(path, "/close")) c->close_after = 1;
  if (equal(path, "/sink")) {
    c->phase = kSink;
    return;
  }
  if (equal(path, "/echo") || c->framing != kNone) return start_echo(c);
  reply_text(c, 200, "Hello over HTTP from a flea-sized sandbox!\n");
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

// The value when the line is "name: value", else NULL; the line ends with a NUL.
static const char* header_value(const char* line, const char* name) {
  for (; *name != '\0'; ++name, ++line) {
    if (lower(*line) != *name) return NULL;
  }
  if (*line++ != ':') return NULL;
  while (*line == ' ' || *line == '\t') ++line;
  return line;
}

static void read_header_line(struct connection* c, const char* line) {
  const char* value = header_value(line, "content-length");
  if (value != NULL && c->framing == kNone) {
    c->body_left = to_number(value);
    c->framing = c->body_left > 0 ? kLength : kNone;
  }
  value = header_value(line, "transfer-encoding");
  if (value != NULL && lower(*value) == 'c') c->framing = kChunkSize;
  value = header_value(line, "connection");
  if (value != NULL && lower(*value) == 'c') c->close_after = 1;
  value = header_value(line, "expect");
  if (value != NULL) add_out(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

// Copies one line of the head and hands it over NUL-terminated.
static void read_header_lines(struct connection* c, size_t line_end, size_t head_end) {
  static char line[kInSize];
  size_t begin = line_end + 2;
  for (size_t i = begin; i + 1 < head_end; ++i) {
    if (c->in[i] != '\r') continue;
    memcpy(line, c->in + begin, i - begin);
    line[i - begin] = '\0';
    read_header_line(c, line);
    begin = i + 2;
  }
}

static void take_in(struct connection* c, size_t n) {
  memmove(c->in, c->in + n, c->in_size - n);
  c->in_size -= n;
  c->moved = 1;
}

static size_t find_head_end(const struct connection* c) {
  for (size_t i = 3; i < c->in_size; ++i) {
    if (c->in[i] == '\n' && c->in[i - 1] == '\r' && c->in[i - 2] == '\n') return i + 1;
  }
  return 0;
}

// Handles one request head if it is complete. False when more input is needed.
static int take_head(struct connection* c) {
  static char path[2048];
  const size_t head_end = find_head_end(c);
  if (head_end == 0) {
    if (c->in_size == kInSize) reply_text(c, 431, "head too large\n");
    return c->in_size == kInSize;
  }
  size_t line_end = 0;
  while (c->in[line_end] != '\r') ++line_end;
  size_t begin = 0;
  while (begin < line_end && c->in[begin] != ' ') ++begin;
  size_t n = 0;
  for (size_t i = begin + 1; i < line_end && n < sizeof path - 1; ++i) {
    if (c->in[i] == ' ' || c->in[i] == '?') break;
    path[n++] = c->in[i];
  }
  path[n] = '\0';
  c->framing = kNone;
  c->body_left = 0;
  read_header_lines(c, line_end, head_end);
  ++served_count;
  route(c, path, line_end, head_end);
  take_in(c, head_end);
  return 1;
}

// --- streaming ---

static void put_chunk(struct connection* c, const char* from, size_t n) {
  struct text t = out_of(c);
  if (c->chunked_reply) {
    put_unsigned(&t, n, 16);
    put(&t, "\r\n");
  }
  put_bytes(&t, from, n);
  if (c->chunked_reply) put(&t, "\r\n");
  c->out_size = t.size;
}

static void end_stream(struct connection* c) {
  if (c->chunked_reply) add_out(c, "0\r\n\r\n", 5);
  c->phase = kFinish;
}

static void fill_big(struct connection* c) {
  static char pattern[8192];
  if (pattern[0] == '\0') memset(pattern, 'b', sizeof pattern);
  while (c->left > 0 && out_room(c) > kSlack + 1024) {
    size_t n = out_room(c) - kSlack;
    if (n > sizeof pattern) n = sizeof pattern;
    if ((long)n > c->left) n = (size_t)c->left;
    put_chunk(c, pattern, n);
    c->left -= (long)n;
  }
  if (c->left <= 0 && out_room(c) > kSlack) end_stream(c);
}

static void fill_drip(struct connection* c) {
  if (now_ms() < c->due) return;
  if (c->left-- <= 0) return end_stream(c);
  put_chunk(c, "drip\n", 5);
  c->due = now_ms() + c->drip_ms;
}

static long hex_value(const char* s, size_t n) {
  long value = 0;
  for (size_t i = 0; i < n; ++i) {
    const char ch = lower(s[i]);
    if (ch >= '0' && ch <= '9')
      value = value * 16 + (ch - '0');
    else if (ch >= 'a' && ch <= 'f')
      value = value * 16 + (ch - 'a' + 10);
    else
      break;
  }
  return value;
}

// One line of chunk framing; false when it is not complete yet.
static int take_framing_line(struct connection* c) {
  size_t end = 0;
  while (end < c->in_size && c->in[end] != '\n') ++end;
  if (end == c->in_size) return 0;
  if (c->framing == kChunkSize) {
    c->body_left = hex_value(c->in, end);
    c->framing = c->body_left > 0 ? kChunkData : kTrailer;
  } else if (c->framing == kChunkEnd) {
    c->framing = kChunkSize;
  } else if (end <= 1) {
    c->framing = kNone;  // the empty line after the trailers
  }
  take_in(c, end + 1);
  return 1;
}

// Moves request body from in to out (echo) or nowhere. False when it needs more input or room.
static int take_body(struct connection* c, int echo) {
  if (c->framing != kLength && c->framing != kChunkData) return take_framing_line(c);
  size_t n = c->in_size;
  if ((long)n > c->body_left) n = (size_t)c->body_left;
  if (echo && out_room(c) <= kSlack + n) n = out_room(c) > kSlack ? out_room(c) - kSlack : 0;
  if (n == 0) return 0;
  if (echo) put_chunk(c, c->in, n);
  take_in(c, n);
  c->body_left -= (long)n;
  if (c->body_left == 0) c->framing = c->framing == kLength ? kNone : kChunkEnd;
  return 1;
}

static void advance_echo(struct connection* c) {
  while (c->framing != kNone && take_body(c, 1)) {
  }
  if (c->framing == kNone && out_room(c) > kSlack) end_stream(c);
}

static void advance_tunnel(struct connection* c) {
  if (c->in_size >= 3 && starts_with(c->in, "bye")) c->close_after = 1;
  size_t n = c->in_size < out_room(c) ? c->in_size : out_room(c);
  if (n == 0) return;
  add_out(c, c->in, n);
  take_in(c, n);
}

static void advance_sink(struct connection* c) {
  while (c->framing != kNone && take_body(c, 0)) {
  }
  if (c->framing == kNone) reply_text(c, 200, "taken\n");
}

// --- the loop ---

static void flush(struct connection* c) {
  while (c->out_sent < c->out_size) {
    const long n = sys6(__NR_sendto, c->fd, (long)(c->out + c->out_sent),
                        (long)(c->out_size - c->out_sent), 0x4000 /* MSG_NOSIGNAL */, 0, 0);
    if (n == -EAGAIN) return;
    if (n <= 0) return drop(c);
    c->out_sent += (size_t)n;
    c->moved = 1;
  }
  c->out_size = c->out_sent = 0;
}

static void read_more(struct connection* c) {
  while (c->in_size < kInSize) {
    const long n = sys_read(c->fd, c->in + c->in_size, kInSize - c->in_size);
    if (n == -EAGAIN) return;
    if (n == 0 && c->phase == kTunnel) {
      c->close_after = 1;
      return;
    }
    if (n <= 0) return drop(c);
    c->in_size += (size_t)n;
  }
}

// One step; false when nothing more can happen now.
static int step(struct connection* c) {
  const enum phase before = c->phase;
  c->moved = 0;
  if (c->phase == kHead && c->out_size == 0 && c->in_size > 0) take_head(c);
  if (c->phase == kEcho) advance_echo(c);
  if (c->phase == kSink) advance_sink(c);
  if (c->phase == kTunnel) advance_tunnel(c);
  if (c->phase == kBig) fill_big(c);
  if (c->phase == kDrip) fill_drip(c);
  if (c->phase == kSleep && now_ms() >= c->due) reply_text(c, 200, "slept\n");
  flush(c);
  if (c->fd == 0) return 0;
  if (c->phase == kTunnel && c->close_after && c->in_size + c->out_size == 0) return drop(c), 0;
  if (c->phase == kFinish) {
    while (c->framing != kNone && take_body(c, 0)) {
    }
    if (c->out_size == 0 && c->close_after) return drop(c), 0;
    if (c->out_size == 0 && c->framing == kNone) c->phase = kHead;
  }
  return c->moved || before != c->phase;
}

static void serve(struct connection* c) {
  do {
    read_more(c);
  } while (c->fd != 0 && step(c));
}

static void take_connections(int listener) {
  while (1) {
    const long fd = sys(__NR_accept4, listener, 0, 0, 0x80800);  // CLOEXEC | NONBLOCK
    if (fd < 0) return;
    struct connection* c = connections;
    while (c < connections + kMaxConnections && c->fd != 0) ++c;
    if (c == connections + kMaxConnections) {
      sys_close((int)fd);
      continue;
    }
    c->fd = (int)fd;
    c->phase = kHead;
    c->framing = kNone;
    c->close_after = 0;
    c->in_size = c->out_size = c->out_sent = 0;
    ++open_count;
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, (uint64_t)(c - connections) + 1};
    sys(__NR_epoll_ctl, epoll_fd, EPOLL_CTL_ADD, fd, &event);
  }
}

// Milliseconds until the next sleeper is due; -1 for ever.
static long next_due(void) {
  int64_t due = -1;
  for (struct connection* c = connections; c < connections + kMaxConnections; ++c) {
    if (c->fd == 0 || (c->phase != kSleep && c->phase != kDrip)) continue;
    if (due < 0 || c->due < due) due = c->due;
  }
  if (due < 0) return -1;
  const int64_t wait = due - now_ms();
  return wait < 0 ? 0 : (long)wait;
}

static void serve_due(void) {
  for (struct connection* c = connections; c < connections + kMaxConnections; ++c) {
    if (c->fd != 0 && (c->phase == kSleep || c->phase == kDrip) && now_ms() >= c->due) serve(c);
  }
}

static int listen_on(long port) {
  const int listener = (int)sys(__NR_socket, 2, 0x80801, 0, 0);  // STREAM | CLOEXEC | NONBLOCK
  const int one = 1;
  sys6(__NR_setsockopt, listener, 1, 2, (long)&one, sizeof one, 0);  // SO_REUSEADDR
  unsigned char address[16] = {2, 0, (unsigned char)(port >> 8), (unsigned char)port};
  if (sys(__NR_bind, listener, address, sizeof address, 0) < 0) return -1;
  return sys(__NR_listen, listener, 512, 0, 0) < 0 ? -1 : listener;
}

static int listen_at(const char* path) {
  const int listener = (int)sys(__NR_socket, 1, 0x80801, 0, 0);  // STREAM | CLOEXEC | NONBLOCK
  char address[110] = {1, 0};
  struct text t = {address, 2, sizeof address - 1};
  put(&t, path);
  if (sys(__NR_bind, listener, address, t.size + 1, 0) < 0) return -1;
  return sys(__NR_listen, listener, 512, 0, 0) < 0 ? -1 : listener;
}

int run(int argc, char** argv, char** envp) {
  (void)argc, (void)argv;
  environment = envp;
  const char* port = env_value(envp, "PORT");
  const char* delay = env_value(envp, "START_DELAY_MS");
  if (env_value(envp, "NEVER_LISTEN") != NULL) sleep_forever();
  if (delay != NULL) sleep_ms(to_number(delay));
  const char* cold = env_value(envp, "COLD_MS");
  if (cold != NULL) cold_until = now_ms() + to_number(cold);
  const char* locked = env_value(envp, "LOCKED_MS");
  if (locked != NULL) locked_until = now_ms() + to_number(locked);
  const char* path = env_value(envp, "LISTEN_UNIX");
  const int listener =
      path != NULL ? listen_at(path) : listen_on(port == NULL ? 8080 : to_number(port));
  if (listener < 0) return say(2, "http-hello: cannot listen\n"), 1;
  epoll_fd = (int)sys(__NR_epoll_create1, 0x80000, 0, 0, 0);
  struct epoll_event event = {EPOLLIN, 0};
  sys(__NR_epoll_ctl, epoll_fd, EPOLL_CTL_ADD, listener, &event);
  while (1) {
    struct epoll_event events[64];
    const long n = sys6(__NR_epoll_pwait, epoll_fd, (long)events, 64, next_due(), 0, 0);
    for (long i = 0; i < n; ++i) {
      if (events[i].data == 0)
        take_connections(listener);
      else if (connections[events[i].data - 1].fd != 0)
        serve(&connections[events[i].data - 1]);
    }
    serve_due();
  }
}
