// probe: named misdeeds and questions, for the tests. What to do is the first of these that is
// not empty: its arguments, the path of the request ("/exit/7"), a query without "=" ("exit+7"),
// the first line on stdin. Several, separated by ";", run in turn ("stderr hello; exit 3").
#include <linux/errno.h>

#include "probe_deeds.h"
#include "tiny.h"

enum { kMaxWords = 16, kMaxText = 4096 };

static int run_words(char** words, int count) {
  words[count] = NULL;
  for (const struct deed* d = deeds; d->name != NULL; ++d) {
    if (equal(d->name, words[0])) return d->run(words + 1, count - 1);
  }
  say(2, "probe: no such deed: ");
  say(2, words[0]);
  say(2, "\n");
  return 2;
}

// Runs every command of `text`, which it cuts up. The last result counts.
static int run_text(char* text) {
  char* words[kMaxWords + 1];
  int count = 0, result = 0;
  for (char* at = text;; ++at) {
    while (*at == ' ' || *at == '\n') *at++ = '\0';
    if (*at == ';' || *at == '\0') {
      const int last = *at == '\0';
      *at = '\0';
      if (count > 0) result = run_words(words, count);
      if (last) return result;
      count = 0;
      continue;
    }
    if (count < kMaxWords) words[count++] = at;
    while (at[1] != '\0' && at[1] != ' ' && at[1] != ';' && at[1] != '\n') ++at;
  }
}

// "/exit/7" -> "exit 7"; a path argument keeps its slashes: "/cat/etc/passwd" -> "cat /etc/passwd".
static void put_path(struct text* t, const char* path) {
  while (*path == '/') ++path;
  while (*path != '\0' && *path != '/') put_bytes(t, path++, 1);
  put(t, " ");
  if (path[0] == '/' && path[1] >= '0' && path[1] <= '9') ++path;
  put(t, path);
}

// "exit+7" -> "exit 7".
static void put_query(struct text* t, const char* query) {
  for (; *query != '\0'; ++query) put_bytes(t, *query == '+' ? " " : query, 1);
}

// "?stream=1" is for the platform, not for us.
static int has_equals(const char* query) {
  while (*query != '\0' && *query != '=') ++query;
  return *query == '=';
}

static void put_first_line(struct text* t) {
  while (t->size < t->capacity - 1) {
    if (sys_read(0, t->at + t->size, 1) != 1 || t->at[t->size] == '\n') return;
    ++t->size;
  }
}

int run(int argc, char** argv, char** envp) {
  static char room[kMaxText];
  struct text t = {room, 0, sizeof room - 1};
  const char* path = env_value(envp, "Http_Path");
  const char* query = env_value(envp, "Http_Query");
  probe_argc = argc;
  probe_argv = argv;
  probe_envp = envp;
  for (int i = 1; i < argc; ++i) {
    put(&t, argv[i]);
    put(&t, " ");
  }
  if (t.size == 0 && path != NULL && length(path) > 1) put_path(&t, path);
  if (t.size == 0 && query != NULL && !has_equals(query)) put_query(&t, query);
  if (t.size == 0) put_first_line(&t);
  room[t.size] = '\0';
  return run_text(room);
}
