// hello: greets, and shows what an exec function sees of its request.
#include "tiny.h"

int run(int argc, char** argv, char** envp) {
  say(1, "Hello from a flea-sized sandbox!\n");
  for (int i = 1; i < argc; ++i) {
    say(1, "argument: ");
    say(1, argv[i]);
    say(1, "\n");
  }
  for (; *envp != NULL; ++envp) {
    if (!starts_with(*envp, "Http_") && !starts_with(*envp, "PULGA_")) continue;
    say(1, *envp);
    say(1, "\n");
  }
  return 0;
}
