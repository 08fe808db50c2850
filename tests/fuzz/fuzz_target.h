// What every fuzz target provides. The same source links with the deterministic mutator of
// fuzz_main.cpp (always built, runs some seconds in CTest) or with clang's -fsanitize=fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Well-formed inputs to start from.
std::vector<std::string> FuzzSeeds();

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
