// A small seeded mutator: the same inputs in the same order on every machine, for
// PULGA_FUZZ_SECONDS (3 unless set) or until PULGA_FUZZ_RUNS inputs. Prints the seed; a failing
// input is left in fuzz-failure.bin before it is tried, and removed when it did no harm.
// `NAME --seeds FOLDER` writes the seeds there as files.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "base/file_io.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using Random = std::mt19937_64;

uint64_t FromEnv(const char* name, uint64_t fallback) {
  const char* value = getenv(name);
  return value != nullptr ? strtoull(value, nullptr, 10) : fallback;
}

size_t Below(Random& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

void MutateOnce(std::string& input, const std::vector<std::string>& seeds, Random& random) {
  static const char* kTokens[] = {"null",      "[",
                                  "]",         "{",
                                  "}",         "\"",
                                  ":",         ",",
                                  "-1",        "1e999",
                                  "../",       "/",
                                  ".wh.",      ".wh..wh..opq",
                                  "\\u0000",   "sha256:",
                                  "\r\n",      "\r\n\r\n",
                                  "chunked",   "Content-Length: ",
                                  "0\r\n\r\n", "HTTP/1.1 "};
  const size_t at = Below(random, input.size() + 1);
  switch (Below(random, 7)) {
    case 0:
      if (!input.empty()) input[at % input.size()] = static_cast<char>(random());
      break;
    case 1:
      if (!input.empty()) input[at % input.size()] ^= static_cast<char>(1 << Below(random, 8));
      break;
    case 2:
      input.erase(at, Below(random, 600));
      break;
    case 3:
      input.insert(at, kTokens[Below(random, std::size(kTokens))]);
      break;
    case 4:
      input.insert(at, input.substr(Below(random, input.size() + 1), Below(random, 1100)));
      break;
    case 5:
      input.resize(at);
      break;
    default: {
      const std::string& other = seeds[Below(random, seeds.size())];
      input.insert(at, other.substr(Below(random, other.size() + 1), Below(random, 2048)));
    }
  }
  if (input.size() > 1 << 20) input.resize(1 << 20);
}

void Try(const std::string& input) {
  const pulga::Status kept = pulga::WriteFile("fuzz-failure.bin", input);
  if (!kept.ok()) fprintf(stderr, "%s\n", kept.error().message.c_str());
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

// The seeds as files, for fuzzers that start from a folder.
int WriteSeeds(const std::string& folder) {
  size_t number = 0;
  for (const std::string& seed : FuzzSeeds()) {
    const pulga::Status written =
        pulga::WriteFile(folder + "/seed-" + std::to_string(number++), seed);
    if (!written.ok()) return fprintf(stderr, "%s\n", written.error().message.c_str()), 2;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--seeds") return WriteSeeds(argv[2]);
  for (int i = 1; i < argc; ++i) {
    const auto input = pulga::ReadFile(argv[i], 16 << 20);
    if (!input.ok()) return fprintf(stderr, "%s\n", input.error().message.c_str()), 2;
    Try(*input);
  }
  const uint64_t seed = FromEnv("PULGA_FUZZ_SEED", 1);
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(argc > 1 ? 0 : FromEnv("PULGA_FUZZ_SECONDS", 3));
  const uint64_t most = FromEnv("PULGA_FUZZ_RUNS", UINT64_MAX);
  const std::vector<std::string> seeds = FuzzSeeds();
  Random random(seed);
  uint64_t runs = 0;
  for (const std::string& input : seeds) Try(input);
  while (runs < most && std::chrono::steady_clock::now() < end) {
    std::string input = seeds[Below(random, seeds.size())];
    for (size_t n = 1 + Below(random, 6); n > 0; --n) MutateOnce(input, seeds, random);
    Try(input);
    ++runs;
  }
  remove("fuzz-failure.bin");
  printf("seed %llu: %llu inputs\n", static_cast<unsigned long long>(seed),
         static_cast<unsigned long long>(runs));
  return runs == 0 && argc == 1 ? 1 : 0;
}
