// What a board tells about itself: what stays (BoardFacts) and what changes (BoardReadings). Values
// only; absent is what this kernel, this board or this moment does not say.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pulga {

// Percent of the time in which some, or all, tasks waited (PSI).
struct PressureShare {
  double avg10 = 0;
  double avg60 = 0;
};
struct Pressure {
  PressureShare some;
  PressureShare full;
};

struct TripPoint {
  std::string type;  // "passive": the kernel slows down there; "critical": it switches off
  double celsius = 0;
};

struct ThermalZone {
  int number = 0;
  std::string type;  // "cpu-thermal"
  std::vector<TripPoint> trips;
};

struct CoreType {
  std::string name;  // "Cortex-A76"
  uint32_t cores = 0;
  uint32_t capacity = 0;  // of 1024; 0 = not told
  uint64_t max_khz = 0;   // 0 = not told
};

struct BoardFacts {
  std::string model;     // of the device tree; "" on a PC
  std::string kernel;    // "6.1.0-rpi7-rpi-v8"
  std::string governor;  // of the first processor; "" = no frequency scaling
  uint64_t page_bytes = 4096;
  uint64_t memory_bytes = 0;
  uint64_t swap_bytes = 0;
  bool zram = false;  // some swap is in compressed memory
  uint32_t cores = 0;
  std::vector<CoreType> core_types;
  std::vector<ThermalZone> processor_zones;  // thermal zones that tell about the processor
  std::string data_device;                   // "179:2"; "" = not on a block device
};

struct DiskCounters {
  uint64_t writes = 0;
  uint64_t write_ms = 0;
};

struct BoardReadings {
  std::optional<Pressure> cpu, memory, io;  // none of them: a kernel without PSI
  std::optional<uint64_t> available_bytes;
  std::optional<double> load1;
  std::optional<double> celsius;              // of the hottest processor zone
  std::string hottest;                        // its type
  std::optional<uint32_t> firmware_throttle;  // Raspberry Pi: get_throttled
  std::optional<uint64_t> throttle_count;     // x86: times slowed down since the boot
  // Of the processor held lowest below what it can do.
  uint64_t cap_khz = 0;
  uint64_t full_khz = 0;
  std::optional<DiskCounters> disk;  // of the device the data directory is on
};

}  // namespace pulga
