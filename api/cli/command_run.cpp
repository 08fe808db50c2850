#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "api/cli/commands.h"
#include "api/cli/deploy_spec.h"
#include "api/cli/output.h"
#include "api/cli/serve_process.h"
#include "base/file_io.h"
#include "base/process.h"
#include "base/temp_dir.h"
#include "base/text.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr auto kStartLimit = std::chrono::seconds(20);
constexpr auto kStopLimit = std::chrono::seconds(30);
constexpr const char* kName = "run";
constexpr const char* kDirPrefix = "pulga-run-";
// Of a deploy: what a single call of a local archive in exec mode has no use for.
constexpr std::string_view kNoOptions[] = {
    "image", "file",       "mode",   "pull", "port",          "min",   "max",       "concurrency",
    "queue", "queue-wait", "parked", "idle", "start-timeout", "label", "annotation"};

// From here on the ending signals are something to wait for beside everything else, so that they
// unwind this process; a `kill -9` is the lifeline's matter.
class EndingSignals {
 public:
  static Result<EndingSignals> Take();
  int fd() const { return fd_.get(); }
  // The signal that came; nothing when none did.
  std::optional<int> Received() const;

 private:
  explicit EndingSignals(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

Result<EndingSignals> EndingSignals::Take() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signo : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now = {};
    // What the caller ignores (nohup, a shell's background job) stays ignored.
    if (sigaction(signo, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, signo);
  }
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return LastError("block signals");
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return LastError("signalfd");
  return EndingSignals(std::move(fd));
}

std::optional<int> EndingSignals::Received() const {
  signalfd_siginfo info = {};
  if (read(fd_.get(), &info, sizeof info) != sizeof info) return std::nullopt;
  return static_cast<int>(info.ssi_signo);
}

// Held by everything below a run, so that a directory whose lock is free is left over from one that
// was killed. It appears only when it is locked.
Result<UniqueFd> LockDirectory(const std::string& dir) {
  const std::string name = dir + "/lock";
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(name + ".new", O_RDONLY | O_CREAT | O_EXCL, 0600));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return LastError("lock " + dir);
  if (rename((name + ".new").c_str(), name.c_str()) != 0) return LastError("rename " + name);
  return fd;
}

bool IsLeftOver(const std::string& dir) {
  struct stat st = {};
  if (lstat(dir.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) return false;
  const auto lock = OpenFile(dir + "/lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  return lock.ok() && flock(lock->get(), LOCK_EX | LOCK_NB) == 0;
}

void SweepLeftOvers(const std::string& parent) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(parent.c_str()), &closedir);
  if (dir == nullptr) return;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string path = parent + "/" + entry->d_name;
    if (!std::string_view(entry->d_name).starts_with(kDirPrefix) || !IsLeftOver(path)) continue;
    (void)RemoveTree(AT_FDCWD, path);  // as much as goes; the next run tries again
  }
}

// A private daemon on a unix socket in a directory of its own; gone with this object.
class PrivateDaemon {
 public:
  static Result<std::unique_ptr<PrivateDaemon>> Start(const Args& args,
                                                      const EndingSignals& signals);
  ~PrivateDaemon();
  DaemonClient Client() const;

 private:
  PrivateDaemon(TempDir dir, int cancel_fd) : dir_(std::move(dir)), cancel_fd_(cancel_fd) {}
  Status Spawn(const Args& args);
  Status AwaitReady();
  std::string data() const { return dir_.path() + "/data"; }
  std::string socket() const { return data() + "/pulga.sock"; }

  TempDir dir_;
  UniqueFd lock_;
  int cancel_fd_;
  UniqueFd lifeline_;  // its other end is the keeper's, which stops when this one closes
  PidFd keeper_;
  UniqueFd log_;  // what the daemon says, shown only when it does not start
};

Result<std::unique_ptr<PrivateDaemon>> PrivateDaemon::Start(const Args& args,
                                                            const EndingSignals& signals) {
  const char* tmp = getenv("TMPDIR");
  const std::string parent = tmp != nullptr ? tmp : "/tmp";
  SweepLeftOvers(parent);
  PULGA_ASSIGN_OR_RETURN(TempDir dir, TempDir::Create(parent + "/" + kDirPrefix));
  // The daemon's user must be able to pass through to its own directory inside.
  if (chmod(dir.path().c_str(), 0711) != 0) return LastError("chmod " + dir.path());
  std::unique_ptr<PrivateDaemon> out(new PrivateDaemon(std::move(dir), signals.fd()));
  PULGA_RETURN_IF_ERROR(out->Spawn(args));
  PULGA_RETURN_IF_ERROR(out->AwaitReady());
  return out;
}

Status PrivateDaemon::Spawn(const Args& args) {
  PULGA_ASSIGN_OR_RETURN(log_, OpenUnnamedFile(dir_.path()));
  // As the keeper's standard input, which is empty, it outlives a run that is killed.
  PULGA_ASSIGN_OR_RETURN(lock_, LockDirectory(dir_.path()));
  SpawnOptions spawn;
  PULGA_ASSIGN_OR_RETURN(
      spawn.argv,
      KeeperArguments({data(), args.Value("user").value_or(""), {"--listen", "unix:" + socket()}}));
  spawn.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  spawn.argv.insert(spawn.argv.begin() + 2, {"--lifeline-fd", "3"});
  int lifeline[2];
  if (pipe2(lifeline, O_CLOEXEC) != 0) return LastError("lifeline");
  const UniqueFd keepers_end(lifeline[0]);
  lifeline_.Reset(lifeline[1]);
  spawn.fds = {{lock_.get(), 0}, {log_.get(), 1}, {log_.get(), 2}, {keepers_end.get(), 3}};
  PULGA_ASSIGN_OR_RETURN(keeper_, SpawnProcess(spawn));
  return OkStatus();
}

// Nothing tells another process that a socket is being listened on: connect until it is, or until
// the keeper ends.
Status PrivateDaemon::AwaitReady() {
  DaemonUrl url;
  url.unix_path = socket();
  const auto limit = std::chrono::steady_clock::now() + kStartLimit;
  while (std::chrono::steady_clock::now() < limit) {
    const Status reached = CheckReachable(url);
    if (reached.ok()) return OkStatus();
    pollfd ended[2] = {{keeper_.fd(), POLLIN, 0}, {cancel_fd_, POLLIN, 0}};
    if (poll(ended, 2, 5) <= 0) continue;
    if (ended[1].revents != 0) return Error{Code::kUnavailable, 0, "interrupted"};
    break;
  }
  lseek(log_.get(), 0, SEEK_SET);
  const auto log = ReadFd(log_.get(), 64 * 1024);
  return Error{Code::kUnavailable, 0,
               "the private daemon did not start:\n" + (log.ok() ? *log : "")};
}

PrivateDaemon::~PrivateDaemon() {
  if (!keeper_.valid()) return;
  (void)keeper_.Signal(SIGTERM);
  pollfd ended = {keeper_.fd(), POLLIN, 0};
  const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(kStopLimit).count();
  if (poll(&ended, 1, static_cast<int>(limit)) <= 0) (void)keeper_.Signal(SIGKILL);
  (void)keeper_.Reap();
}

DaemonClient PrivateDaemon::Client() const {
  DaemonUrl url;
  url.unix_path = socket();
  url.base = "http://localhost";
  url.cancel_fd = cancel_fd_;
  const auto key = ReadFile(data() + "/admin.key", 4096);
  return DaemonClient(url, key.ok() ? std::string(Trim(key->substr(0, key->find('\n')))) : "");
}

Status Deploy(const DaemonClient& client, const Args& args, const std::string& image) {
  PULGA_ASSIGN_OR_RETURN(const DeploySpec flags, BuildDeploySpec(args, ""));
  Json spec = Json::parse(flags.json, nullptr, /*allow_exceptions=*/false);
  spec["image"] = image;
  spec["mode"] = "exec";
  spec["pull"] = "never";  // it was imported a moment ago
  spec["scale"]["max"] = 1;
  spec["scale"]["parked"] = 0;
  // One run may take and say as much as it likes, unless told otherwise.
  Json& limits = spec["limits"];
  for (const auto& [name, value] :
       {std::pair("timeout", "24h"), std::pair("body", "1Gi"), std::pair("output", "1Gi")}) {
    if (!limits.contains(name)) limits[name] = value;
  }
  const std::vector<std::string> given(args.words().begin() + 1, args.words().end());
  if (!given.empty()) spec["args"] = given;
  ClientRequest request;
  request.method = "PUT";
  request.target = std::string("/v1/functions/") + kName;
  request.body = spec.dump();
  return Status(client.Call(std::move(request)));
}

// The exit code a shell would report for the program.
int ExitCodeOf(const std::string& outcome) {
  if (outcome == "ok") return 0;
  const size_t colon = outcome.find(':');
  const std::string kind = outcome.substr(0, colon);
  const std::string detail = colon == std::string::npos ? "" : outcome.substr(colon + 1);
  if (kind == "exited") return static_cast<int>(ParseUint(detail, 255).value_or(1));
  for (int signo = 1; kind == "signaled" && signo < 65; ++signo) {
    const char* name = sigabbrev_np(signo);
    if (name != nullptr && detail == std::string("SIG") + name) return 128 + signo;
  }
  if (kind == "oom-killed") return 128 + SIGKILL;
  return kind == "timed-out" ? 124 : kExitFailed;
}

struct CallLog {
  std::string stderr_text;
  std::string outcome;  // as our own remark on the call says
};

// A reply that broke off carries no outcome; the function's log does.
CallLog ReadLog(const DaemonClient& client) {
  CallLog out;
  const auto reply = client.Get(std::string("/v1/functions/") + kName + "/logs?tail=10000");
  if (!reply.ok()) return out;
  for (std::string_view line : Split(reply->body, '\n')) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const std::string text = json.value("text", "");
    if (json.value("stream", "") == "stderr") out.stderr_text += text + "\n";
    if (json.value("stream", "") != "pulga") continue;
    for (std::string_view word : Split(text, ' ')) {
      while (!word.empty() && (word.back() == ',' || word.back() == '.')) word.remove_suffix(1);
      for (const char* kind :
           {"exited:", "signaled:", "oom-killed", "timed-out", "syscall-denied", "output-limit"}) {
        if (word.substr(0, strlen(kind)) == kind) out.outcome = word;
      }
    }
  }
  return out;
}

int Call(const DaemonClient& client, const Args& args) {
  ClientRequest request;
  request.method = "POST";
  request.target = std::string("/function/") + kName + "?stream=1";
  if (isatty(STDIN_FILENO) != 1 && fcntl(STDIN_FILENO, F_GETFD) >= 0)
    request.body_fd = STDIN_FILENO;
  const auto reply = client.Invoke(request, [](const ClientReply& head, std::string_view bytes) {
    return head.status == 200 ? WriteAll(STDOUT_FILENO, bytes) : OkStatus();
  });
  if (!reply.ok()) return Fail(reply.error());
  const CallLog log = ReadLog(client);
  PrintErr(log.stderr_text);
  std::string outcome = reply->Header("X-Pulga-Outcome");
  if (outcome.empty()) outcome = log.outcome;
  if (args.Has("verbose")) PrintErr(ReceiptTable(*reply));
  if (args.Has("json"))
    PrintErr(Json({{"outcome", outcome}, {"status", reply->status}}).dump() + "\n");
  const int code = ExitCodeOf(outcome);
  if (outcome != "ok")
    PrintError("the program ended with " + (outcome.empty() ? "an unknown outcome" : outcome));
  return code;
}

int RunWith(const Args& args, const EndingSignals& signals) {
  const std::string& archive = args.words()[0];
  const auto readable = OpenFile(archive, O_RDONLY);
  if (!readable.ok()) return Fail(readable.error());
  auto daemon = PrivateDaemon::Start(args, signals);
  if (!daemon.ok()) return Fail(daemon.error());
  const DaemonClient client = (*daemon)->Client();
  const auto imported = ImportArchive(client, {archive, "", false});
  if (!imported.ok()) return Fail(imported.error());
  const std::vector<std::string> refs = ImportedRefs(imported->body);
  if (refs.size() != 1)
    return Fail(
        {Code::kInvalidArgument, 0, archive + " holds several images: " + Join(refs, ", ")});
  const Status deployed = Deploy(client, args, refs[0]);
  if (!deployed.ok()) return Fail(deployed.error());
  return Call(client, args);
}

int RunRun(const Args& args) {
  const Status root = CheckRoot("pulga run");
  if (!root.ok()) return Fail(root.error());
  const auto signals = EndingSignals::Take();
  if (!signals.ok()) return Fail(signals.error());
  const int code = RunWith(args, *signals);  // the daemon is gone when this returns
  const std::optional<int> signo = signals->Received();
  return signo ? 128 + *signo : code;
}

}  // namespace

std::vector<Command> RunCommands() {
  Command run{
      "run",
      "[options] IMAGE.tar [ARGUMENT...]",
      "Run an image's program once, in a sandbox, and leave nothing.",
      "Needs root. stdin and stdout are the program's, its exit code becomes this command's. What\n"
      "follows IMAGE.tar replaces the image's own arguments.",
      DeploySpecOptions() +
          std::vector<Option>{{"verbose", 'v', "", "print the receipt on stderr"}} +
          CommonOptions(),
      1,
      1000,
      &RunRun};
  std::erase_if(run.options, [](const Option& o) {
    return std::find(std::begin(kNoOptions), std::end(kNoOptions), o.name) != std::end(kNoOptions);
  });
  run.words = Command::Words::kEndOptions;
  return {run};
}

}  // namespace pulga::cli
