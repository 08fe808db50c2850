#include "sandbox/program_lookup.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/sys.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

constexpr size_t kHeadBytes = 512;

struct Platform {
  uint16_t machine;
  const char* name;
};
constexpr Platform kPlatforms[] = {
    {EM_X86_64, "linux/amd64"}, {EM_AARCH64, "linux/arm64"}, {EM_ARM, "linux/arm"},
    {EM_386, "linux/386"},      {EM_RISCV, "linux/riscv64"}, {EM_PPC64, "linux/ppc64le"},
    {EM_S390, "linux/s390x"},   {EM_MIPS, "linux/mips"},
};

#if defined(__x86_64__)
constexpr uint16_t kBoardMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kBoardMachine = EM_AARCH64;
#elif defined(__arm__)
constexpr uint16_t kBoardMachine = EM_ARM;
#else
#error "pulga knows no system call list for this machine"
#endif

std::string PlatformName(uint16_t machine) {
  for (const Platform& platform : kPlatforms) {
    if (platform.machine == machine) return platform.name;
  }
  return "ELF machine " + std::to_string(machine);
}

enum class Verdict { kRunnable, kMissing, kNotExecutable, kNotAFile };

struct Candidate {
  Verdict verdict = Verdict::kMissing;
  UniqueFd fd;  // readable; invalid where only execution is allowed
};

UniqueFd OpenInRoot(int root_fd, const std::string& path, int flags) {
  return UniqueFd(PULGA_SYS(sys::OpenInRoot, root_fd, path.c_str(), flags));
}

Candidate Examine(int root_fd, const std::string& path) {
  Candidate candidate;
  const UniqueFd handle = OpenInRoot(root_fd, path, O_PATH);
  struct stat st = {};
  if (!handle.valid() || fstat(handle.get(), &st) != 0) return candidate;
  if (!S_ISREG(st.st_mode)) {
    candidate.verdict = Verdict::kNotAFile;
  } else if ((st.st_mode & 0111) == 0) {
    candidate.verdict = Verdict::kNotExecutable;
  } else {
    candidate.verdict = Verdict::kRunnable;
    candidate.fd = OpenInRoot(root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  }
  return candidate;
}

std::string PathOf(const std::vector<std::string>& env) {
  std::string path(kDefaultPath);
  for (const std::string& entry : env) {
    if (entry.starts_with("PATH=")) path = entry.substr(5);
  }
  return path;
}

std::string JoinPath(std::string_view directory, const std::string& name) {
  std::string out(directory.starts_with('/') ? directory : "/");
  if (!out.ends_with('/')) out += '/';
  return out + name;
}

Error CannotRun(const std::string& name, const std::string& why, Code code = Code::kNotFound) {
  return Error{code, 0, "cannot run \"" + Printable(name, 128) + "\": " + why};
}

std::string Describe(Verdict verdict) {
  return verdict == Verdict::kNotAFile ? "it is not a regular file" : "it is not executable";
}

struct Found {
  std::string path;
  Candidate candidate;
};

Result<Found> Find(const ProgramQuery& query) {
  if (query.name.empty()) {
    return Error{Code::kInvalidArgument, 0,
                 "the image names no command; give one (\"command\" of the function)"};
  }
  if (query.name.find('/') != std::string::npos) {
    const std::string path =
        query.name[0] == '/' ? query.name : JoinPath(query.working_dir, query.name);
    Found found{path, Examine(query.root_fd, path)};
    if (found.candidate.verdict == Verdict::kMissing) {
      return CannotRun(query.name, "there is no such file in the image");
    }
    if (found.candidate.verdict != Verdict::kRunnable) {
      return CannotRun(query.name, Describe(found.candidate.verdict), Code::kPermission);
    }
    return found;
  }
  const std::string path = PathOf(query.env);
  std::string unfit;
  for (const std::string_view directory : Split(path, ':')) {
    // An empty element means the working directory to a shell.
    Found found;
    found.path = JoinPath(directory.empty() ? query.working_dir : directory, query.name);
    found.candidate = Examine(query.root_fd, found.path);
    if (found.candidate.verdict == Verdict::kRunnable) return found;
    if (found.candidate.verdict != Verdict::kMissing) {
      unfit = found.path + ": " + Describe(found.candidate.verdict);
    }
  }
  if (!unfit.empty()) return CannotRun(query.name, unfit, Code::kPermission);
  return CannotRun(query.name, "it is nowhere in the image's PATH (" + Printable(path, 256) + ")");
}

std::string ReadHead(const UniqueFd& fd) {
  std::string head(kHeadBytes, '\0');
  const ssize_t size = pread(fd.get(), head.data(), head.size(), 0);
  head.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return head;
}

// Why an image for `platform` is not for this board; ok when its programs make the board's calls.
Result<ProgramAbi> AbiOf(const ProgramQuery& query, const std::string& platform) {
  const ProgramBoard& board = query.board;
  if (platform == board.platform) return ProgramAbi::kBoard;
  const std::string other = "this image is " + platform + ", this board is " + board.platform;
  if (platform == "linux/arm" && board.platform == "linux/arm64") {
    const Status runs = board.try_arm32();
    if (runs.ok()) return ProgramAbi::kArm32;
    return CannotRun(query.name, other + ": " + runs.error().message, runs.error().code);
  }
  const bool i386 = platform == "linux/386" && board.platform == "linux/amd64";
  return CannotRun(query.name, i386 ? other + ": 32-bit x86 programs are not run" : other,
                   Code::kUnsupported);
}

// How many interpreters that are scripts themselves the kernel follows.
constexpr int kMostScripts = 5;

Result<ProgramAbi> AbiOfHead(const ProgramQuery& query, const std::string& head, int scripts);

Result<ProgramAbi> AbiOfInterpreter(const ProgramQuery& query, const std::string& interpreter,
                                    int scripts) {
  if (interpreter.empty()) {
    return CannotRun(query.name, "its first line names no interpreter", Code::kInvalidArgument);
  }
  if (scripts > kMostScripts) {
    return CannotRun(query.name, "its interpreters are scripts, each for the next",
                     Code::kInvalidArgument);
  }
  const std::string path =
      interpreter[0] == '/' ? interpreter : JoinPath(query.working_dir, interpreter);
  const Candidate candidate = Examine(query.root_fd, path);
  const std::string what = "it is a script for " + Printable(interpreter, 128) + ", ";
  if (candidate.verdict == Verdict::kMissing) {
    return CannotRun(query.name, what + "which the image does not contain");
  }
  if (candidate.verdict != Verdict::kRunnable) {
    return CannotRun(query.name, what + "and " + Describe(candidate.verdict), Code::kPermission);
  }
  if (!candidate.fd.valid()) return ProgramAbi::kBoard;
  return AbiOfHead(query, ReadHead(candidate.fd), scripts);
}

// What execve would answer with a bare ENOEXEC or ENOENT.
Result<ProgramAbi> AbiOfHead(const ProgramQuery& query, const std::string& head, int scripts) {
  const std::string platform = ElfPlatform(head);
  if (!platform.empty()) return AbiOf(query, platform);
  if (head.starts_with("#!")) return AbiOfInterpreter(query, ScriptInterpreter(head), scripts + 1);
  const std::string what = scripts > 0 ? "its interpreter" : "it";
  return CannotRun(query.name,
                   what + (head.empty() ? " is an empty file"
                                        : " is neither a Linux program (ELF) nor a script (#!)"),
                   Code::kInvalidArgument);
}

}  // namespace

Result<FoundProgram> FindProgram(const ProgramQuery& query) {
  PULGA_ASSIGN_OR_RETURN(const Found found, Find(query));
  FoundProgram out = {found.path, ProgramAbi::kBoard};
  // A file that may be executed but not read is left for execve to judge.
  if (found.candidate.fd.valid()) {
    PULGA_ASSIGN_OR_RETURN(out.abi, AbiOfHead(query, ReadHead(found.candidate.fd), 0));
  }
  return out;
}

std::string ElfPlatform(std::string_view head) {
  constexpr size_t kNeeded = 20;  // up to and with e_machine
  if (head.size() < kNeeded || memcmp(head.data(), ELFMAG, SELFMAG) != 0) return "";
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(head[i]); };
  const bool big_endian = byte(EI_DATA) == ELFDATA2MSB;
  const size_t at = offsetof(Elf32_Ehdr, e_machine);
  const auto machine = static_cast<uint16_t>(big_endian ? byte(at) << 8 | byte(at + 1)
                                                        : byte(at + 1) << 8 | byte(at));
  if (machine == EM_X86_64 && byte(EI_CLASS) == ELFCLASS32) return "linux/x32";
  return PlatformName(machine);
}

std::string BoardPlatform() { return PlatformName(kBoardMachine); }

std::string ScriptInterpreter(std::string_view head) {
  if (!head.starts_with("#!")) return "";
  head.remove_prefix(2);
  head = Trim(head.substr(0, head.find('\n')));
  return std::string(head.substr(0, head.find_first_of(" \t\r")));
}

}  // namespace pulga
