#include "api/cli/zram_setup.h"

#include <fcntl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "api/cli/args.h"
#include "api/cli/client.h"
#include "api/cli/output.h"
#include "base/file_io.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/units.h"
#include "runtime/board.h"

namespace pulga::cli {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kMost = 4096 * kMiB;
constexpr const char* kUnitFile = "/etc/systemd/system/pulga-zram.service";
constexpr const char* kUnitLink = "/etc/systemd/system/multi-user.target.wants/pulga-zram.service";
constexpr const char* kControl = "/sys/class/zram-control/hot_add";

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

std::string Line(const std::string& path) {
  const auto text = ReadFile(path);
  return text.ok() ? text->substr(0, text->find('\n')) : "";
}

// Of the tools every Debian has, without a shell.
Status RunTool(const char* name, std::vector<std::string> args) {
  for (const char* folder : {"/usr/sbin/", "/sbin/", "/usr/bin/"}) {
    SpawnOptions options;
    options.argv = {std::string(folder) + name};
    if (!Exists(options.argv[0])) continue;
    options.argv.insert(options.argv.end(), args.begin(), args.end());
    options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    options.fds = {{STDERR_FILENO, STDERR_FILENO}};
    PULGA_ASSIGN_OR_RETURN(PidFd child, SpawnProcess(options));
    PULGA_ASSIGN_OR_RETURN(const ExitInfo ended, child.Reap());
    if (ended.wait_status == 0) return OkStatus();
    return Error{Code::kIo, 0, std::string(name) + " " + Join(args, " ") + " failed"};
  }
  return Error{Code::kUnsupported, ENOENT, std::string("there is no ") + name + " here"};
}

Status LoadModule() {
  if (Exists(kControl) || Exists("/sys/block/zram0")) return OkStatus();
  const Status loaded = RunTool("modprobe", {"zram"});
  if (loaded.ok() && Exists("/sys/block/zram0")) return OkStatus();
  return Error{Code::kUnsupported, 0,
               "this kernel has no zram, or it may not be loaded from here (in a container: do "
               "this on the host): " +
                   (loaded.ok() ? std::string("no /sys/block/zram0") : loaded.error().message)};
}

// The first that nobody uses, or a new one. "zram0".
Result<std::string> FreeDevice() {
  for (int i = 0; Exists("/sys/block/zram" + std::to_string(i)); ++i) {
    const std::string name = "zram" + std::to_string(i);
    if (Line("/sys/block/" + name + "/disksize") == "0") return name;
  }
  PULGA_ASSIGN_OR_RETURN(const std::string number, ReadFile(kControl));
  return "zram" + number.substr(0, number.find('\n'));
}

Status SwapOn(const std::string& device, int priority) {
  const int flags = SWAP_FLAG_PREFER | (priority << SWAP_FLAG_PRIO_SHIFT & SWAP_FLAG_PRIO_MASK);
  if (PULGA_SYS(swapon, device.c_str(), flags) == 0) return OkStatus();
  if (errno != EPERM) return LastError("swapon " + device);
  return Error{Code::kPermission, EPERM,
               "swapon " + device +
                   ": not permitted: it needs CAP_SYS_ADMIN on the board itself, not in a "
                   "container or as a user"};
}

Status Fill(const std::string& name, const ZramPlan& plan) {
  const std::string folder = "/sys/block/" + name + "/";
  // Listed is also what its own module brings, which may not be there: the default does as well.
  if (!plan.algorithm.empty()) (void)WriteFile(folder + "comp_algorithm", plan.algorithm).ok();
  PULGA_RETURN_IF_ERROR(WriteFile(folder + "disksize", std::to_string(plan.bytes)));
  PULGA_RETURN_IF_ERROR(RunTool("mkswap", {"/dev/" + name}));
  return SwapOn("/dev/" + name, plan.priority);
}

Result<ZramPlan> PlanForBoard(const std::string& device) {
  PULGA_ASSIGN_OR_RETURN(const std::string meminfo, ReadFile("/proc/meminfo"));
  PULGA_ASSIGN_OR_RETURN(const uint64_t memory, ParseMeminfo(meminfo, "MemTotal"));
  return PlanZram(memory, Line("/sys/block/" + device + "/comp_algorithm"));
}

// What is there is kept: it may be the administrator's.
Status Persist(const std::string& pulga) {
  if (!Exists("/run/systemd/system")) {
    PrintOut("it lasts until the next start: there is no systemd here to do it again\n");
    return OkStatus();
  }
  if (Exists(kUnitFile)) return OkStatus();
  PULGA_RETURN_IF_ERROR(WriteFile(kUnitFile, ZramUnit(pulga)));
  PULGA_RETURN_IF_ERROR(MakeDirs("/etc/systemd/system/multi-user.target.wants"));
  if (symlink("../pulga-zram.service", kUnitLink) != 0 && errno != EEXIST) {
    return LastError(std::string("enable ") + kUnitFile);
  }
  PrintOut(std::string("at each start: ") + kUnitFile + "\n");
  return OkStatus();
}

Status Do(const std::string& pulga) {
  if (geteuid() != 0) return Error{Code::kPermission, 0, "only root can set up swap"};
  PULGA_RETURN_IF_ERROR(LoadModule());
  PULGA_ASSIGN_OR_RETURN(const std::string name, FreeDevice());
  PULGA_ASSIGN_OR_RETURN(const ZramPlan plan, PlanForBoard(name));
  const Status filled = Fill(name, plan);
  if (!filled.ok()) {
    (void)WriteFile("/sys/block/" + name + "/reset", "1").ok();
    return filled;
  }
  PrintOut("/dev/" + name + " is swap now: " + HumanBytes(plan.bytes) + ", " +
           Line("/sys/block/" + name + "/comp_algorithm") + "\n");
  return Persist(pulga);
}

}  // namespace

ZramPlan PlanZram(uint64_t memory_bytes, std::string_view algorithms) {
  ZramPlan plan;
  plan.bytes = std::clamp(memory_bytes / 2 / kMiB * kMiB, kMiB, kMost);
  for (const std::string_view word : Split(algorithms, ' ')) {
    if (word == "lz4" || word == "[lz4]") plan.algorithm = "lz4";
  }
  return plan;
}

std::string FindZramSwap(std::string_view swaps) {
  for (const std::string_view line : Split(swaps, '\n')) {
    if (line.starts_with("/dev/zram"))
      return std::string(line.substr(0, line.find_first_of(" \t")));
  }
  return "";
}

std::string ZramUnit(const std::string& pulga) {
  return "[Unit]\nDescription=Compressed swap for idle functions\nBefore=pulga.service\n\n"
         "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=" +
         pulga + " doctor --setup-zram --yes\n\n[Install]\nWantedBy=multi-user.target\n";
}

std::string DescribeZram(const ZramPlan& plan, const std::string& pulga) {
  const std::string algorithm =
      plan.algorithm.empty() ? ""
                             : "  echo " + plan.algorithm + " > /sys/block/zram0/comp_algorithm\n";
  return "Idle functions are frozen, and their pages go to swap where there is some. On a board\n"
         "that is memory, compressed (zram): " +
         HumanBytes(plan.bytes) + " of it, " +
         (plan.algorithm.empty() ? "the kernel's algorithm" : plan.algorithm) + ", priority " +
         std::to_string(plan.priority) + ".\n\nAs root:\n  modprobe zram\n" + algorithm +
         "  echo " + std::to_string(plan.bytes) +
         " > /sys/block/zram0/disksize\n  mkswap /dev/zram0\n" + "  swapon --priority " +
         std::to_string(plan.priority) +
         " /dev/zram0\nAt each start: Debian's package zram-tools (PERCENT=50 in "
         "/etc/default/zramswap), or the unit\n" +
         kUnitFile + ":\n\n" + ZramUnit(pulga) + "\nAll of this: " + pulga +
         " doctor --setup-zram --yes\n";
}

int SetUpZram(ZramConsent consent) {
  const auto swaps = ReadFile("/proc/swaps");
  const std::string there = swaps.ok() ? FindZramSwap(*swaps) : "";
  if (!there.empty()) {
    PrintOut(there + " is swap already: nothing to do\n");
    return kExitOk;
  }
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  const std::string pulga = n <= 0 ? "pulga" : std::string(path, static_cast<size_t>(n));
  if (consent == ZramConsent::kPrint) {
    const auto plan = PlanForBoard("zram0");
    if (!plan.ok()) return Fail(plan.error());
    PrintOut(DescribeZram(*plan, pulga));
    return kExitOk;
  }
  const Status done = Do(pulga);
  return done.ok() ? kExitOk : Fail(done.error());
}

}  // namespace pulga::cli
