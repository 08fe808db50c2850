#include "runtime/sense/board_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_io.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "runtime/sense/board_files.h"

namespace pulga {
namespace {

constexpr int kMostZones = 64;
constexpr int kMostTrips = 16;
constexpr int kMostPolicies = 256;
constexpr char kFirmware[] = "/sys/devices/platform/soc/soc:firmware/get_throttled";
constexpr char kCpus[] = "/sys/devices/system/cpu/";

// "MAJOR:MINOR" of what `path` is on; nothing where that is no block device (tmpfs, overlay).
std::string DeviceOf(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0 || major(info.st_dev) == 0) return "";
  return std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
}

}  // namespace

BoardReader::BoardReader(std::string root, const std::string& data_dir) : root_(std::move(root)) {
  facts_.data_device = DeviceOf(data_dir);
  ReadFacts();
  ReadCores();
  ReadZones();
}

// The beginning of a file, "" when there is none. Not ReadFile: that refuses what is longer.
std::string BoardReader::Text(const std::string& path, size_t limit) const {
  const auto fd = OpenFile(root_ + path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd.ok()) return "";
  std::string text(limit, '\0');
  size_t have = 0;
  while (have < limit) {
    const ssize_t n = read(fd->get(), text.data() + have, limit - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    have += static_cast<size_t>(n);
  }
  text.resize(have);
  return text;
}

void BoardReader::ReadFacts() {
  facts_.model = ParseModel(Text("/proc/device-tree/model"));
  facts_.kernel = ParseModel(Text("/proc/sys/kernel/osrelease"));
  const auto page = ParseKib(Text("/proc/self/smaps"), "KernelPageSize");
  facts_.page_bytes = page.value_or(static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  const std::string meminfo = Text("/proc/meminfo", 16 << 10);
  facts_.memory_bytes = ParseKib(meminfo, "MemTotal").value_or(0);
  facts_.swap_bytes = ParseKib(meminfo, "SwapTotal").value_or(0);
  facts_.zram = SwapsToZram(Text("/proc/swaps", 16 << 10));
}

void BoardReader::ReadCores() {
  const std::vector<std::string> names = ParseProcessors(Text("/proc/cpuinfo", 1 << 20));
  facts_.cores = static_cast<uint32_t>(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string dir = kCpus + ("cpu" + std::to_string(i));
    CoreType core = {names[i], 1, 0, 0};
    core.capacity =
        static_cast<uint32_t>(ParseNumber(Text(dir + "/cpu_capacity", 64)).value_or(0) % 4096);
    core.max_khz = ParseNumber(Text(dir + "/cpufreq/cpuinfo_max_freq", 64)).value_or(0);
    const auto same =
        std::find_if(facts_.core_types.begin(), facts_.core_types.end(), [&](const auto& type) {
          return type.name == core.name && type.capacity == core.capacity &&
                 type.max_khz == core.max_khz;
        });
    if (same == facts_.core_types.end()) {
      facts_.core_types.push_back(core);
    } else {
      ++same->cores;
    }
  }
  for (int i = 0; i < kMostPolicies; ++i) {
    const std::string dir = kCpus + ("cpufreq/policy" + std::to_string(i));
    if (access((root_ + dir).c_str(), X_OK) == 0) frequency_dirs_.push_back(dir);
  }
  if (!frequency_dirs_.empty()) {
    facts_.governor = ParseModel(Text(frequency_dirs_[0] + "/scaling_governor", 64));
  }
}

void BoardReader::ReadZones() {
  for (int i = 0; i < kMostZones; ++i) {
    const std::string dir = "/sys/class/thermal/thermal_zone" + std::to_string(i);
    ThermalZone zone;
    zone.number = i;
    zone.type = ParseModel(Text(dir + "/type", 64));
    if (!IsProcessorZone(zone.type)) continue;
    for (int trip = 0; trip < kMostTrips; ++trip) {
      const std::string point = dir + "/trip_point_" + std::to_string(trip);
      const auto celsius = ParseMilliCelsius(Text(point + "_temp", 64));
      if (!celsius) continue;
      zone.trips.push_back({ParseModel(Text(point + "_type", 64)), *celsius});
    }
    facts_.processor_zones.push_back(std::move(zone));
  }
}

void BoardReader::ReadFrequencies(BoardReadings* readings) const {
  double lowest = 1;
  for (const std::string& dir : frequency_dirs_) {
    const auto cap = ParseNumber(Text(dir + "/scaling_max_freq", 64));
    const auto full = ParseNumber(Text(dir + "/cpuinfo_max_freq", 64));
    if (!cap || !full || *full == 0) continue;
    const double share = static_cast<double>(*cap) / static_cast<double>(*full);
    if (readings->full_khz != 0 && share >= lowest) continue;
    lowest = share;
    readings->cap_khz = *cap;
    readings->full_khz = *full;
  }
}

BoardReadings BoardReader::Read() const {
  BoardReadings now;
  now.cpu = ParsePressure(Text("/proc/pressure/cpu"));
  now.memory = ParsePressure(Text("/proc/pressure/memory"));
  now.io = ParsePressure(Text("/proc/pressure/io"));
  now.available_bytes = ParseKib(Text("/proc/meminfo", 16 << 10), "MemAvailable");
  now.load1 = ParseLoad(Text("/proc/loadavg", 128));
  for (const ThermalZone& zone : facts_.processor_zones) {
    const auto celsius = ParseMilliCelsius(
        Text("/sys/class/thermal/thermal_zone" + std::to_string(zone.number) + "/temp", 64));
    if (!celsius || (now.celsius && *now.celsius >= *celsius)) continue;
    now.celsius = celsius;
    now.hottest = zone.type;
  }
  now.firmware_throttle = ParseThrottled(Text(kFirmware, 64));
  now.throttle_count =
      ParseNumber(Text(std::string(kCpus) + "cpu0/thermal_throttle/package_throttle_count", 64));
  ReadFrequencies(&now);
  if (!facts_.data_device.empty()) {
    now.disk = ParseDiskStat(Text("/sys/dev/block/" + facts_.data_device + "/stat", 512));
  }
  return now;
}

}  // namespace pulga
