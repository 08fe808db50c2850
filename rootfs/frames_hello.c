// frames-hello: a frames function (docs/frames.md), one thread, 256 calls at once.
//
//   /                     greeting                /echo (or any request with a body)  the body back
//   /about                method, path, query     /headers      the request's headers
//   /status/NNN           that status             /sleep/MS     answers after MS
//   /sink                 answers once the body has been read
//   /big/N                N bytes                 /drip/N/MS    N pieces, MS apart
//   /hang                 never answers           /giveup       ends the call without an answer
//   /env                  the environment         /fds          its descriptors
//   /stats                open, served, cancelled counts
//   /bad/HOW              a head, or a stream, that is wrong; the table is in misbehave()
//   /exit/N  /crash       misdeeds of the whole process; /cut  dies in mid-answer
//
// NEVER_HELLO=1 says nothing, BAD_HELLO=1 something else, EARLY_EXIT=N ends before its hello.
#include "frames.h"

enum { kMaxCalls = 256, kWindow = 16384, kReplySize = 16384 };
enum phase { kFree, kEcho, kSink, kBig, kDrip, kSleep, kHang };

struct call {
  uint32_t id;
  enum phase phase;
  int body_open;    // of the request more may come
  uint32_t credit;  // bytes of the reply's body we may send
  long left;        // bytes or drips still to send
  long drip_ms;
  int64_t due;  // kSleep, kDrip: when to go on
  size_t held;
  char hold[kWindow];  // of the request's body, not sent back yet
};

static struct call calls[kMaxCalls];
static long open_count, served_count, cancelled_count;
static uint32_t reply_window;
static char** environment;

static struct call* find(uint32_t id) {
  for (struct call* c = calls; c < calls + kMaxCalls; ++c) {
    if (c->phase != kFree && c->id == id) return c;
  }
  return NULL;
}

static void release(struct call* c) {
  c->phase = kFree;
  --open_count;
}

// For every reply that is not streamed: nothing is taken up or gone on with while there is less.
static int has_room(void) { return frame_room() > 2 * kReplySize; }

// --- replies

static void put_head(uint32_t id, long status, int flags, long size) {
  char room[256];
  struct text t = {room, 2, sizeof room};
  put_number_at(room, (uint32_t)status, 2);
  put_string(&t, "Content-Type", 12);
  put_string(&t, "text/plain", 10);
  put_string(&t, "X-Served-By", 11);
  put_string(&t, "frames-hello", 12);
  if (size >= 0) {
    char digits[24];
    struct text d = {digits, 0, sizeof digits};
    put_number(&d, size);
    put_string(&t, "Content-Length", 14);
    put_string(&t, d.at, d.size);
  }
  put_frame(id, kHead, flags, t.at, t.size);
}

static void reply(struct call* c, long status, const char* body, size_t size) {
  put_head(c->id, status, size == 0 ? kEnd : 0, (long)size);
  if (size > 0) put_frame(c->id, kBody, kEnd, body, size);
  ++served_count;
  release(c);
}

static void reply_text(struct call* c, long status, const char* body) {
  reply(c, status, body, length(body));
}

static void reply_env(struct call* c) {
  static char room[kReplySize];
  struct text t = {room, 0, sizeof room};
  for (char** at = environment; *at != NULL; ++at) {
    put(&t, *at);
    put(&t, "\n");
  }
  reply(c, 200, t.at, t.size);
}

static void reply_fds(struct call* c) {
  char room[1024];
  struct text t = {room, 0, sizeof room};
  for (long fd = 0; fd < 4096; ++fd) {
    if (sys(__NR_fcntl, fd, 1 /* F_GETFD */, 0, 0) < 0) continue;
    put_number(&t, fd);
    put(&t, " ");
  }
  reply(c, 200, t.at, t.size);
}

static void reply_stats(struct call* c) {
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

struct request {
  const char* method;
  const char* path;
  const char* query;
  size_t method_size, path_size, query_size;
  const char* headers;
  const char* end;
};

static void reply_about(struct call* c, const struct request* r) {
  static char room[kReplySize];
  struct text t = {room, 0, sizeof room};
  put_bytes(&t, r->method, r->method_size);
  put(&t, " ");
  put_bytes(&t, r->path, r->path_size);
  put(&t, "?");
  put_bytes(&t, r->query, r->query_size);
  put(&t, "\n");
  reply(c, 200, t.at, t.size);
}

static void reply_headers(struct call* c, const struct request* r) {
  static char room[kReplySize];
  struct text t = {room, 0, sizeof room};
  const char* at = r->headers;
  const char* text;
  size_t size;
  for (int value = 0; next_string(&at, r->end, &text, &size); value = !value) {
    put_bytes(&t, text, size);
    put(&t, value ? "\n" : ": ");
  }
  reply(c, 200, t.at, t.size);
}

// --- misdeeds

static void put_raw(const char* bytes, size_t n) {
  memcpy(frames_out.bytes + frames_out.size, bytes, n);
  frames_out.size += n;
}

// A head whose one header is `name: value`.
static void bad_head(struct call* c, long status, const char* name, const char* value) {
  char room[256];
  struct text t = {room, 2, sizeof room};
  put_number_at(room, (uint32_t)status, 2);
  put_string(&t, name, length(name));
  put_string(&t, value, length(value));
  put_frame(c->id, kHead, 0, t.at, t.size);
  put_frame(c->id, kBody, kEnd, "hello", 5);
  release(c);
}

// A byte with our standard input beside it. Linux 6.16 refuses it where the daemon asks it to.
static void send_descriptor(struct call* c) {
  struct {
    long size;
    int level, type, fd, padding;
  } control = {sizeof(long) + 3 * sizeof(int), 1 /* SOL_SOCKET */, 1 /* SCM_RIGHTS */, 0, 0};
  struct {
    char* at;
    size_t size;
  } bytes = {"", 1};
  struct {
    void* name;
    unsigned name_size;
    void* bytes;
    size_t count;
    void* control;
    size_t control_size;
    int flags;
  } message = {NULL, 0, &bytes, 1, &control, sizeof control, 0};
  const long sent = sys(__NR_sendmsg, frames_fd, (long)&message, 0x4000 /* MSG_NOSIGNAL */, 0);
  if (sent < 0) reply_text(c, 200, sent == -EPERM ? "refused\n" : "failed\n");
}

// The first six are one call's fault, the rest are the stream's.
static void misbehave(struct call* c, const char* how) {
  static char zeros[kMaxPayload];
  const uint32_t id = c->id;
  if (equal(how, "status")) return bad_head(c, 99, "A", "b");
  if (equal(how, "header")) return bad_head(c, 200, "A b", "c");
  if (equal(how, "value")) return bad_head(c, 200, "A", "b\r\nX-Pulga-Outcome: ok");
  if (equal(how, "length")) return bad_head(c, 200, "Content-Length", "4");
  if (equal(how, "short")) return bad_head(c, 200, "Content-Length", "100");
  if (equal(how, "forged")) return bad_head(c, 200, "X-Pulga-Outcome", "forged");
  if (equal(how, "id")) return put_head(id + 1, 200, kEnd, 0);
  if (equal(how, "late")) {
    put_head(id, 200, kEnd, 0);
    return put_frame(id, kBody, 0, "late", 4);
  }
  if (equal(how, "twice")) {
    put_head(id, 200, 0, -1);
    return put_head(id, 200, 0, -1);
  }
  if (equal(how, "headless")) return put_frame(id, kBody, 0, "hello", 5);
  if (equal(how, "hello")) return put_hello(kWindow);
  if (equal(how, "type")) return put_frame(id, (enum frame_type)9, 0, "", 0);
  if (equal(how, "flag")) return put_frame(id, kBody, 8, "", 0);
  if (equal(how, "credit")) return put_credit(id, 0x7fffffff);
  if (equal(how, "window")) {
    put_head(id, 200, 0, -1);
    put_frame(id, kBody, 0, zeros, kMaxPayload);
    return put_frame(id, kBody, 0, "more", 4);
  }
  if (equal(how, "size")) return put_raw("\xff\xff\xff\xff....\3\0\0\0", kHeaderSize);
  if (equal(how, "reserved")) return put_raw("\0\0\0\0....\3\0\0\1", kHeaderSize);
  if (equal(how, "garbage")) return put_raw("HTTP/1.1 200 OK\r\n\r\nthis is no frame at all", 42);
  if (equal(how, "close")) {
    sys_close(frames_fd);
    sleep_forever();
  }
  if (equal(how, "descriptor")) return send_descriptor(c);
  if (equal(how, "middle")) {
    put_head(id, 200, 0, -1);
    char* frame = begin_frame(id, kBody, 0, 100);
    memcpy(frame, "cut off", 7);
    frames_out.size -= 93;
    flush_frames();
    sys_close(frames_fd);
    sleep_forever();
  }
  reply_text(c, 404, "no such misdeed\n");
}

// --- calls

static long number_after(const char* path, const char* prefix) {
  return to_number(path + length(prefix));
}

static void begin_stream(struct call* c, enum phase phase, long left) {
  put_head(c->id, 200, 0, -1);
  c->phase = phase;
  c->left = left;
  c->due = now_ms();
}

static void route(struct call* c, const struct request* r, const char* path) {
  if (equal(path, "/about")) return reply_about(c, r);
  if (equal(path, "/headers")) return reply_headers(c, r);
  if (equal(path, "/env")) return reply_env(c);
  if (equal(path, "/fds")) return reply_fds(c);
  if (equal(path, "/stats")) return reply_stats(c);
  if (equal(path, "/sink")) return (void)(c->phase = kSink);
  if (equal(path, "/hang")) return (void)(c->phase = kHang);
  if (equal(path, "/crash")) *(volatile int*)0 = 0;
  if (starts_with(path, "/exit/")) sys_exit((int)number_after(path, "/exit/"));
  if (starts_with(path, "/bad/")) return misbehave(c, path + 5);
  if (starts_with(path, "/status/"))
    return reply_text(c, number_after(path, "/status/"), "so be it\n");
  if (starts_with(path, "/big/")) return begin_stream(c, kBig, number_after(path, "/big/"));
  if (equal(path, "/giveup")) {
    put_frame(c->id, kCancel, 0, "", 0);
    return release(c);
  }
  if (equal(path, "/cut")) {
    put_head(c->id, 200, 0, -1);
    put_frame(c->id, kBody, 0, "cut off", 7);
    flush_frames();
    sleep_ms(100);
    *(volatile int*)0 = 0;
  }
  if (starts_with(path, "/drip/")) {
    const char* ms = path + 6;
    while (*ms != '/' && *ms != '\0') ++ms;
    c->drip_ms = *ms == '/' ? to_number(ms + 1) : 0;
    return begin_stream(c, kDrip, number_after(path, "/drip/"));
  }
  if (starts_with(path, "/sleep/")) {
    c->phase = kSleep;
    c->due = now_ms() + number_after(path, "/sleep/");
    return;
  }
  if (c->body_open || equal(path, "/echo")) return begin_stream(c, kEcho, 0);
  reply_text(c, 200, "Hello in frames from a flea-sized sandbox!\n");
}

static void take_head(const struct frame* f) {
  struct call* c = calls;
  while (c < calls + kMaxCalls && c->phase != kFree) ++c;
  if (c == calls + kMaxCalls) return put_frame(f->id, kCancel, 0, "", 0);
  c->id = f->id;
  c->phase = kHang;
  c->body_open = (f->flags & kEnd) == 0;
  c->credit = reply_window;
  c->held = 0;
  ++open_count;
  struct request r;
  const char* at = f->payload;
  r.end = f->payload + f->size;
  next_string(&at, r.end, &r.method, &r.method_size);
  next_string(&at, r.end, &r.path, &r.path_size);
  next_string(&at, r.end, &r.query, &r.query_size);
  r.headers = at;
  char path[256];
  struct text t = {path, 0, sizeof path - 1};
  put_bytes(&t, r.path, r.path_size);
  path[t.size] = '\0';
  route(c, &r, path);
}

static void take_body(struct call* c, const struct frame* f) {
  if ((f->flags & kEnd) != 0) c->body_open = 0;
  if (c->phase == kEcho) {
    memcpy(c->hold + c->held, f->payload, f->size);  // no more comes than the window
    c->held += f->size;
  } else if (f->size > 0 && c->body_open) {
    put_credit(f->id, f->size);
  }
}

static void take(const struct frame* f) {
  if (f->type == kHello) {
    reply_window = number_at(f->payload + 8, 4);
    return;
  }
  if (f->type == kHead) return take_head(f);
  struct call* c = find(f->id);
  if (c == NULL) return;  // we have ended it already
  if (f->type == kBody) return take_body(c, f);
  if (f->type == kCredit) c->credit += number_at(f->payload, 4);
  if (f->type == kCancel) {
    put_frame(f->id, kCancel, 0, "", 0);
    ++cancelled_count;
    release(c);
  }
}

// --- what goes on by itself

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static void end_stream(struct call* c) {
  put_frame(c->id, kBody, kEnd, "", 0);
  ++served_count;
  release(c);
}

static void advance_echo(struct call* c) {
  const size_t n = least(least(c->held, c->credit), frame_room());
  if (n > 0) {
    put_frame(c->id, kBody, 0, c->hold, n);
    memmove(c->hold, c->hold + n, c->held - n);
    c->held -= n;
    c->credit -= (uint32_t)n;
    if (c->body_open) put_credit(c->id, (uint32_t)n);
  }
  if (c->held == 0 && !c->body_open) end_stream(c);
}

static void advance_big(struct call* c) {
  const size_t n = least(least((size_t)c->left, c->credit), frame_room());
  if (n > 0) memset(begin_frame(c->id, kBody, 0, n), 'x', n);
  c->credit -= (uint32_t)n;
  c->left -= (long)n;
  if (c->left == 0) end_stream(c);
}

static void advance_drip(struct call* c) {
  if (now_ms() < c->due || c->credit < 5) return;
  if (c->left == 0) return end_stream(c);
  put_frame(c->id, kBody, 0, "drip\n", 5);
  c->credit -= 5;
  --c->left;
  c->due += c->drip_ms;
}

static void advance(struct call* c) {
  if (c->phase == kEcho) advance_echo(c);
  if (c->phase == kBig) advance_big(c);
  if (c->phase == kDrip) advance_drip(c);
  if (c->phase == kSink && !c->body_open) reply_text(c, 200, "taken\n");
  if (c->phase == kSleep && now_ms() >= c->due) reply_text(c, 200, "slept\n");
}

// Milliseconds until the next sleeper is due; -1 for ever.
static long next_due(void) {
  int64_t due = -1;
  for (struct call* c = calls; c < calls + kMaxCalls; ++c) {
    if (c->phase != kSleep && (c->phase != kDrip || c->credit < 5)) continue;
    if (due < 0 || c->due < due) due = c->due;
  }
  if (due < 0) return -1;
  const int64_t wait = due - now_ms();
  return wait < 0 ? 0 : (long)wait;
}

int run(int argc, char** argv, char** envp) {
  (void)argc, (void)argv;
  environment = envp;
  const char* fd = env_value(envp, "PULGA_FRAMES_FD");
  if (fd == NULL) return say(2, "frames-hello: PULGA_FRAMES_FD is not set\n"), 1;
  frames_fd = (int)to_number(fd);
  if (env_value(envp, "NEVER_HELLO") != NULL) sleep_forever();
  if (env_value(envp, "BAD_HELLO") != NULL) put_raw("SSH-2.0-hello\r\n", 15);
  if (env_value(envp, "EARLY_EXIT") != NULL) return (int)to_number(env_value(envp, "EARLY_EXIT"));
  put_hello(kWindow);
  int again = 0;  // there was no room for all that could be said
  while (1) {
    flush_frames();
    const long ms = open_count > 0 ? next_due() : -1;
    if (!wait_frames(again && frames_out.size == 0 ? 0 : ms)) return 0;
    struct frame f;
    while (has_room() && next_frame(&f)) take(&f);
    for (struct call* c = calls; open_count > 0 && c < calls + kMaxCalls; ++c) {
      if (c->phase != kFree && has_room()) advance(c);
    }
    again = !has_room();
  }
}
