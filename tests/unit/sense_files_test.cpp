// What boards write into their files, and what they might: the parsers, and the reader over a tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <random>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/sense/board_files.h"
#include "runtime/sense/board_reader.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(SenseFiles, APressureFileHasSomeAndPerhapsFull) {
  const auto both = ParsePressure(
      "some avg10=12.50 avg60=3.00 avg300=0.10 total=158523000\n"
      "full avg10=2.25 avg60=1.00 avg300=0.00 total=36450786\n");
  ASSERT_TRUE(both);
  EXPECT_DOUBLE_EQ(both->some.avg10, 12.5);
  EXPECT_DOUBLE_EQ(both->some.avg60, 3);
  EXPECT_DOUBLE_EQ(both->full.avg10, 2.25);
  const auto one = ParsePressure("some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
  ASSERT_TRUE(one);
  EXPECT_DOUBLE_EQ(one->full.avg10, 0);
}

TEST(SenseFiles, WhatIsNoPressureFileSaysNothing) {
  for (const char* text : {"", "some", "some avg10=", "some avg10=1.0", "full avg10=1 avg60=1",
                           "some avg10=nan avg60=0", "some avg10=-1 avg60=0", "\n\n", "garbage",
                           "some avg10=101.0 avg60=0.0", "some avg10=1..0 avg60=0.0"}) {
    EXPECT_FALSE(ParsePressure(text)) << text;
  }
}

TEST(SenseFiles, TemperaturesThatCanNotBeAreSensorsThatDoNotWork) {
  EXPECT_DOUBLE_EQ(ParseMilliCelsius("48312\n").value(), 48.312);
  EXPECT_DOUBLE_EQ(ParseMilliCelsius("-5000\n").value(), -5);
  for (const char* text : {"", "hot", "-274000\n", "999999\n", "48.3\n", "4294967295"}) {
    EXPECT_FALSE(ParseMilliCelsius(text)) << text;
  }
}

TEST(SenseFiles, TheFirmwaresFlagsAreHexadecimal) {
  EXPECT_EQ(ParseThrottled("50005\n"), 0x50005U);
  EXPECT_EQ(ParseThrottled("0x2\n"), 2U);
  for (const char* text : {"", "0x", "xyz", "123456789", "-1"}) EXPECT_FALSE(ParseThrottled(text));
  EXPECT_EQ(ThrottleText(0x50005), "undervoltage, slowed down");
  EXPECT_EQ(ThrottleText(0x50000), "") << "what was, is over";
}

TEST(SenseFiles, DiskCountersOfAnyKernel) {
  // Linux 6 writes 17 numbers, 4.19 eleven.
  const auto now = ParseDiskStat("  120 3 4 50 700 9 10 3500 0 1 2 3 4 5 6 7 8\n");
  ASSERT_TRUE(now);
  EXPECT_EQ(now->writes, 700U);
  EXPECT_EQ(now->write_ms, 3500U);
  for (const char* text : {"", "1 2 3", "1 2 3 4 x 6 7 8", "1 2 3 4 5 6 7 -8"}) {
    EXPECT_FALSE(ParseDiskStat(text)) << text;
  }
}

TEST(SenseFiles, ProcessorsByTheirPartOrName) {
  EXPECT_THAT(ParseProcessors("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n"
                              "processor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
                              "Revision\t: c04170\nModel\t\t: Raspberry Pi 5\n"),
              ElementsAre("Cortex-A55", "Cortex-A76"));
  EXPECT_THAT(ParseProcessors("Processor\t: ARMv7 Processor rev 5\nprocessor\t: 0\nCPU implementer"
                              "\t: 0x41\nCPU part\t: 0xc07\n"),
              ElementsAre("Cortex-A7"));
  EXPECT_THAT(ParseProcessors("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n"),
              ElementsAre("Some CPU @ 2.00GHz"));
  EXPECT_THAT(ParseProcessors("processor : 0\nCPU implementer : 0x99\nCPU part : 0x123\n"),
              ElementsAre("part 0x123 of 0x99"));
  EXPECT_THAT(ParseProcessors(""), IsEmpty());
}

TEST(SenseFiles, ZonesOfWifiAndBatterySayNothingAboutTheProcessor) {
  for (const char* type : {"cpu-thermal", "soc_thermal", "x86_pkg_temp", "bigcore0-thermal"}) {
    EXPECT_TRUE(IsProcessorZone(type)) << type;
  }
  for (const char* type : {"iwlwifi_1", "BAT0", "nvme", "gpu-thermal", ""}) {
    EXPECT_FALSE(IsProcessorZone(type)) << type;
  }
}

TEST(SenseFiles, SurvivesWhateverTheFilesHold) {
  std::mt19937 random(7);
  const std::string seeds[] = {
      "some avg10=12.50 avg60=3.00 avg300=0.10 total=158523000\nfull avg10=1.00 avg60=0.00\n",
      "MemTotal:  948280 kB\nMemAvailable: 51200 kB\nKernelPageSize:  16 kB\n",
      "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd08\nmodel name : x\n",
      "1 2 3 4 5 6 7 8 9 10 11\n",
      "48312\n",
      "Raspberry Pi 4 Model B Rev 1.4"};
  for (int i = 0; i < 20000; ++i) {
    std::string text = seeds[random() % std::size(seeds)];
    for (int changes = static_cast<int>(random() % 4); changes > 0 && !text.empty(); --changes) {
      text[random() % text.size()] = static_cast<char>(random());
    }
    text.resize(random() % (text.size() + 1));
    (void)ParsePressure(text);
    (void)ParseKib(text, "MemAvailable");
    (void)ParseLoad(text);
    (void)ParseMilliCelsius(text);
    (void)ParseThrottled(text);
    (void)ParseNumber(text);
    (void)ParseDiskStat(text);
    EXPECT_LE(ParseModel(text).size(), 110U);
    EXPECT_LE(ParseProcessors(text).size(), 1024U);
    (void)SwapsToZram(text);
    (void)IsProcessorZone(text);
  }
}

// --- whole boards

class SenseReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::make_unique<TempDir>(TempDir::Create("/tmp/sense-").value());
  }
  void Put(const std::string& path, std::string_view text) {
    const std::string file = dir_->path() + path;
    ASSERT_TRUE(MakeDirs(file.substr(0, file.rfind('/'))).ok());
    ASSERT_TRUE(WriteFile(file, text).ok());
  }
  void PutCore(int number, int capacity, const char* khz, std::string* cpuinfo, const char* part) {
    const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(number);
    if (capacity != 0) Put(cpu + "/cpu_capacity", std::to_string(capacity) + "\n");
    Put(cpu + "/cpufreq/cpuinfo_max_freq", khz);
    *cpuinfo += "processor\t: " + std::to_string(number) +
                "\nCPU implementer\t: 0x41\nCPU part\t: " + part + "\n\n";
  }
  void PutPi4() {
    Put("/proc/device-tree/model", std::string_view("Raspberry Pi 4 Model B Rev 1.4\0", 31));
    Put("/proc/sys/kernel/osrelease", "6.1.0-rpi7-rpi-v8\n");
    Put("/proc/self/smaps",
        "5580000000-5580001000 r-xp 00000000 b3:02 1 /bin/x\n"
        "Size:  4 kB\nKernelPageSize:        4 kB\n");
    Put("/proc/meminfo",
        "MemTotal:        3884360 kB\nMemFree:  1 kB\n"
        "MemAvailable:    3100000 kB\nSwapTotal:        102396 kB\n");
    Put("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/var/swap file 102396 0 -2\n");
    std::string cpuinfo;
    for (int i = 0; i < 4; ++i) PutCore(i, 0, "1800000\n", &cpuinfo, "0xd08");
    Put("/proc/cpuinfo", cpuinfo + "Revision\t: c03114\n");
    const std::string policy = "/sys/devices/system/cpu/cpufreq/policy0/";
    Put(policy + "scaling_governor", "ondemand\n");
    Put(policy + "scaling_max_freq", "1200000\n");
    Put(policy + "cpuinfo_max_freq", "1800000\n");
    Put("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
    Put("/sys/class/thermal/thermal_zone0/temp", "61835\n");
    Put("/sys/class/thermal/thermal_zone0/trip_point_0_temp", "110000\n");
    Put("/sys/class/thermal/thermal_zone0/trip_point_0_type", "critical\n");
    Put("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n");
    Put("/proc/loadavg", "0.52 0.58 0.59 1/123 456\n");
  }
  BoardReader Reader() { return BoardReader(dir_->path(), dir_->path()); }

  std::unique_ptr<TempDir> dir_;
};

TEST_F(SenseReaderTest, ARaspberryPi4WithoutPressureFiles) {
  PutPi4();  // its kernel has PSI only with psi=1
  const BoardReader reader = Reader();
  const BoardFacts& facts = reader.facts();
  EXPECT_EQ(facts.model, "Raspberry Pi 4 Model B Rev 1.4");
  EXPECT_EQ(facts.kernel, "6.1.0-rpi7-rpi-v8");
  EXPECT_EQ(facts.page_bytes, 4096U);
  EXPECT_EQ(facts.governor, "ondemand");
  EXPECT_EQ(facts.memory_bytes, 3884360U * 1024);
  EXPECT_FALSE(facts.zram);
  ASSERT_EQ(facts.core_types.size(), 1U);
  EXPECT_EQ(facts.core_types[0].name, "Cortex-A72");
  EXPECT_EQ(facts.core_types[0].cores, 4U);
  ASSERT_EQ(facts.processor_zones.size(), 1U);
  EXPECT_EQ(facts.processor_zones[0].trips[0].type, "critical");
  const BoardReadings now = reader.Read();
  EXPECT_FALSE(now.memory || now.cpu || now.io);
  EXPECT_DOUBLE_EQ(now.celsius.value(), 61.835);
  EXPECT_EQ(now.hottest, "cpu-thermal");
  EXPECT_EQ(now.firmware_throttle, 0x50005U);
  EXPECT_EQ(now.cap_khz, 1200000U);
  EXPECT_EQ(now.full_khz, 1800000U);
  EXPECT_DOUBLE_EQ(now.load1.value(), 0.52);
}

TEST_F(SenseReaderTest, ARaspberryPi5HasLargePagesAndBigLittleBoardsTwoTypes) {
  PutPi4();
  Put("/proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0");
  Put("/proc/self/smaps", "x\nKernelPageSize:       16 kB\n");
  Put("/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n");
  std::string cpuinfo;
  for (int i = 0; i < 4; ++i) PutCore(i, 414, "1800000\n", &cpuinfo, "0xd05");
  for (int i = 4; i < 8; ++i) PutCore(i, 1024, "2400000\n", &cpuinfo, "0xd0b");
  Put("/proc/cpuinfo", cpuinfo);
  const BoardReader reader = Reader();
  EXPECT_EQ(reader.facts().page_bytes, 16384U);
  EXPECT_TRUE(reader.facts().zram);
  ASSERT_EQ(reader.facts().core_types.size(), 2U);
  EXPECT_EQ(reader.facts().core_types[1].name, "Cortex-A76");
  EXPECT_EQ(reader.facts().core_types[1].capacity, 1024U);
  EXPECT_EQ(reader.facts().cores, 8U);
}

TEST_F(SenseReaderTest, APcTakesTheHottestProcessorZone) {
  Put("/proc/cpuinfo",
      "processor\t: 0\nmodel name\t: A CPU\n\nprocessor\t: 1\nmodel name\t: A CPU\n");
  Put("/proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n");
  const char* types[] = {"acpitz\n", "x86_pkg_temp\n", "iwlwifi_1\n", "TCPU\n"};
  const char* heat[] = {"99000\n", "51000\n", "98000\n", "47000\n"};
  for (int i = 0; i < 4; ++i) {
    const std::string zone = "/sys/class/thermal/thermal_zone" + std::to_string(i);
    Put(zone + "/type", types[i]);
    Put(zone + "/temp", heat[i]);
  }
  Put("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "17\n");
  const BoardReadings now = Reader().Read();
  EXPECT_DOUBLE_EQ(now.celsius.value(), 51);
  EXPECT_EQ(now.hottest, "x86_pkg_temp");
  EXPECT_EQ(now.throttle_count, 17U);
}

TEST_F(SenseReaderTest, AnEmptyTreeAndOneOfDirectoriesAndPipesIsABoardThatSaysNothing) {
  EXPECT_EQ(Reader().facts().cores, 0U);
  ASSERT_TRUE(MakeDirs(dir_->path() + "/proc/meminfo").ok());
  ASSERT_TRUE(MakeDirs(dir_->path() + "/proc/pressure").ok());
  ASSERT_EQ(mkfifo((dir_->path() + "/proc/pressure/memory").c_str(), 0600), 0);
  const BoardReadings now = Reader().Read();  // and does not wait for a writer
  EXPECT_FALSE(now.memory || now.available_bytes || now.celsius || now.disk);
}

TEST_F(SenseReaderTest, ThisMachineIsReadAsItIs) {
  const BoardReader reader("", "/tmp");
  EXPECT_GT(reader.facts().cores, 0U);
  EXPECT_GT(reader.facts().memory_bytes, 0U);
  EXPECT_EQ(reader.facts().page_bytes, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  EXPECT_GT(reader.Read().available_bytes.value_or(0), 0U);
}

}  // namespace
}  // namespace pulga
