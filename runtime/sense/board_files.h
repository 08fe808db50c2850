// Pure parsers of the kernel's files that BoardReader reads. Whatever the text, an answer: nothing
// where it does not say what is looked for, as with an empty, cut or foreign file.
// Source: Documentation/accounting/psi.rst, filesystems/proc.rst, block/stat.rst,
// driver-api/thermal.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sense/readings.h"

namespace pulga {

// /proc/pressure/*. The line "full" may be missing (cpu, before Linux 5.13).
std::optional<Pressure> ParsePressure(std::string_view text);
// A line "NAME:   123 kB" of /proc/meminfo or smaps, in bytes.
std::optional<uint64_t> ParseKib(std::string_view text, std::string_view name);
std::optional<double> ParseLoad(std::string_view loadavg);
// thermal_zone*/temp, in thousandths; what no processor survives is a sensor that does not work.
std::optional<double> ParseMilliCelsius(std::string_view text);
// get_throttled: hexadecimal, with or without 0x.
std::optional<uint32_t> ParseThrottled(std::string_view text);
// A number on a line of its own.
std::optional<uint64_t> ParseNumber(std::string_view text);
// /sys/block/*/stat
std::optional<DiskCounters> ParseDiskStat(std::string_view text);
// /proc/device-tree/model ends with a NUL; printable, at most 100 bytes.
std::string ParseModel(std::string_view text);
// /proc/cpuinfo: one name for each processor, in order: "Cortex-A76", "Intel(R) ...", "".
std::vector<std::string> ParseProcessors(std::string_view cpuinfo);
// /proc/swaps lists a zram device.
bool SwapsToZram(std::string_view swaps);
// Does a thermal zone of this type tell about the processor?
bool IsProcessorZone(std::string_view type);
// "undervoltage, slowed down" of the bits that hold now; "" of none.
std::string ThrottleText(uint32_t bits);

}  // namespace pulga
