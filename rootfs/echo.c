// echo: stdin to stdout, unchanged, or in capitals when its argument is "upper".
#include "tiny.h"

int run(int argc, char** argv, char** envp) {
  static char block[16384];
  const int upper = argc > 1 && equal(argv[1], "upper");
  (void)envp;
  while (1) {
    const long n = sys_read(0, block, sizeof block);
    if (n == 0) return 0;
    if (n < 0) return 1;
    for (long i = 0; upper && i < n; ++i) {
      if (block[i] >= 'a' && block[i] <= 'z') block[i] = (char)(block[i] - 'a' + 'A');
    }
    if (write_all(1, block, (size_t)n) != 0) return 1;
  }
}
