#include "api/cli/bench_steps.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/cli/commands.h"
#include "api/cli/http_reply_parser.h"
#include "api/cli/tar_image.h"
#include "base/file_io.h"
#include "base/text.h"
#include "images/image.h"

namespace pulga::cli {

// Compiled in by cmake/embed.cmake.
extern const std::string_view kHelloProgram;
extern const std::string_view kHttpHelloProgram;

namespace {

using Json = nlohmann::ordered_json;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(20);
constexpr size_t kTarBlock = 512;

enum Step { kBareFirst, kBareEnd, kUnparked, kParked, kWarm, kThaw, kBuild, kCold, kImport };
constexpr const char* kStepNames[] = {"bare vfork+exec, to the first byte",
                                      "bare vfork+exec, to its end",
                                      "unparked start",
                                      "parked start",
                                      "warm http call",
                                      "thaw and http call",
                                      "spawner build",
                                      "cold start, spawner built",
                                      "import of an image of 8 KiB"};

double MillisSince(steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(steady_clock::now() - begin).count();
}

// One step of Server-Timing; 0 when it is not there.
double TimingOf(std::string_view server_timing, std::string_view name) {
  for (std::string_view part : Split(server_timing, ',')) {
    part = Trim(part);
    const size_t mark = part.find(";dur=");
    if (mark == std::string_view::npos || part.substr(0, mark) != name) continue;
    return std::strtod(std::string(part.substr(mark + 5)).c_str(), nullptr);
  }
  return 0;
}

Status ReadReply(int fd, ReplyParser* parser) {
  char buffer[16 * 1024];
  while (!parser->done()) {
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("receive the daemon's reply");
    if (n == 0) return Error{Code::kIo, 0, "the daemon closed the connection"};
    PULGA_RETURN_IF_ERROR(parser->Feed(std::string_view(buffer, static_cast<size_t>(n))));
  }
  return OkStatus();
}

}  // namespace

std::string MakeTar(const std::vector<std::pair<std::string, std::string_view>>& files) {
  std::string out;
  for (const auto& [name, bytes] : files) {
    std::string head(kTarBlock, '\0');
    const auto put = [&head](size_t at, const std::string& text) {
      head.replace(at, text.size(), text);
    };
    char size[12];
    std::snprintf(size, sizeof size, "%011zo", bytes.size());
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, size);
    put(136, "00000000000");
    put(148, "        ");  // the sum counts its own field as spaces
    put(156, "0");
    put(257, std::string("ustar\0", 6) + "00");
    unsigned sum = 0;
    for (const char c : head) sum += static_cast<unsigned char>(c);
    char field[8];
    std::snprintf(field, sizeof field, "%06o", sum);
    put(148, std::string(field) + std::string("\0 ", 2));
    out += head;
    out += bytes;
    out.append((kTarBlock - bytes.size() % kTarBlock) % kTarBlock, '\0');
  }
  return out.append(2 * kTarBlock, '\0');
}

bool SpawnerIsGone(const std::string& status) {
  return status.find(R"("last_decision":"drops the spawner)") != std::string::npos;
}

BenchSteps::BenchSteps(const DaemonClient& client, TempDir dir, std::chrono::milliseconds gap)
    : client_(client),
      dir_(std::move(dir)),
      gap_(gap),
      prefix_("bench-" + std::to_string(getpid()) + "-"),
      image_("pulga-bench:" + std::to_string(getpid())) {
  for (const char* name : kStepNames) receipt.steps.push_back({name, {}, {}});
}

BenchSteps::~BenchSteps() {
  const auto remove = [this](const std::string& target) {
    ClientRequest request;
    request.method = "DELETE";
    request.target = target;
    (void)client_.Call(std::move(request));
  };
  for (const std::string& name : functions_) remove("/v1/functions/" + name);
  for (const std::string& ref : images_) remove("/v1/images/" + PercentEncode(ref));
}

Status BenchSteps::Import(const std::string& ref, const std::string& extra) {
  const std::string file = dir_.path() + "/image.tar";
  PULGA_RETURN_IF_ERROR(WriteFile(
      file, MakeTar({{"hello", kHelloProgram}, {"http-hello", kHttpHelloProgram}, {"id", extra}})));
  images_.push_back(ref);
  return Status(ImportTar(client_, {file, ref, HostPlatform().architecture}));
}

Status BenchSteps::Deploy(const std::string& name, const std::string& json) {
  Json spec = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  spec["image"] = image_;
  spec["pull"] = "never";
  ClientRequest request;
  request.method = "PUT";
  request.target = "/v1/functions/" + name;
  request.body = spec.dump();
  functions_.push_back(name);
  return Status(client_.Call(std::move(request)));
}

Status BenchSteps::Prepare() {
  const std::string program = dir_.path() + "/hello";
  PULGA_RETURN_IF_ERROR(WriteFile(program, kHelloProgram, 0755));
  PULGA_RETURN_IF_ERROR(Import(image_, "the one that is run"));
  const std::string exec = R"({"mode":"exec","command":["/hello"],"scale":)";
  const std::string http = R"({"mode":"http","command":["/http-hello"],"port":8080,"scale":)";
  const std::pair<const char*, std::string> functions[] = {
      {"unparked", exec + R"({"parked":0,"idle":"1h"}})"},
      {"parked", exec + R"({"parked":1,"idle":"1h"}})"},
      {"cold", exec + R"({"parked":0,"idle":"50ms"}})"},
      {"warm", http + R"({"max":1,"idle":"1h","freeze_after":"never"}})"},
      {"thaw", http + R"({"max":1,"idle":"1h","freeze_after":"10ms"}})"}};
  for (const auto& [name, spec] : functions) {
    PULGA_RETURN_IF_ERROR(Deploy(Name(name), spec));
    PULGA_RETURN_IF_ERROR(Status(Call(Name(name))));
  }
  return OkStatus();
}

void BenchSteps::Rest() const { std::this_thread::sleep_for(gap_); }

// The connection is kept: what a caller that calls often sees.
Result<BenchSteps::Sample> BenchSteps::Call(const std::string& name) {
  if (!connection_.valid()) {
    PULGA_ASSIGN_OR_RETURN(connection_, Connect(client_.url()));
    const int on = 1;
    (void)setsockopt(connection_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  const std::string request = "GET /function/" + name + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const BodySink keep;
  ReplyParser parser(keep);
  const auto begin = steady_clock::now();
  PULGA_RETURN_IF_ERROR(WriteAll(connection_.get(), request));
  PULGA_RETURN_IF_ERROR(ReadReply(connection_.get(), &parser));
  Sample sample;
  sample.client_ms = MillisSince(begin);
  const ClientReply& reply = parser.reply();
  if (reply.status != 200) {
    return Error{Code::kUnavailable, 0,
                 name + " answered " + std::to_string(reply.status) + ": " +
                     Printable(Trim(reply.body), 500)};
  }
  if (EqualsIgnoreCase(reply.Header("Connection"), "close")) connection_.Reset();
  const std::string timing = reply.Header("Server-Timing");
  sample.start = reply.Header("X-Pulga-Start");
  sample.queue_ms = TimingOf(timing, "queue");
  sample.first_byte_ms = sample.queue_ms + TimingOf(timing, "sandbox") + TimingOf(timing, "exec");
  sample.total_ms = sample.queue_ms + TimingOf(timing, "sandbox") + TimingOf(timing, "ready") +
                    TimingOf(timing, "function");
  return sample;
}

Status BenchSteps::AwaitStatus(const std::string& name,
                               const std::function<bool(const std::string& json)>& reached) {
  const auto limit = steady_clock::now() + kPatience;
  while (steady_clock::now() < limit) {
    PULGA_ASSIGN_OR_RETURN(const ClientReply reply, client_.Get("/v1/functions/" + name));
    if (reached(reply.body)) return OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return Error{Code::kTimeout, 0, name + " did not come to rest"};
}

Status BenchSteps::AwaitStep(const std::string& name, const std::string& step) {
  return AwaitStatus(name, [wanted = "\"step\":\"" + step + '"'](const std::string& json) {
    return json.find(wanted) != std::string::npos;
  });
}

// --- the steps

Status BenchSteps::Bare() {
  Rest();
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("pipe2");
  const UniqueFd out(fds[0]);
  UniqueFd in(fds[1]);
  const std::string program = dir_.path() + "/hello";
  char* argv[] = {const_cast<char*>(program.c_str()), nullptr};
  char* envp[] = {nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
  pid_t pid = 0;
  const auto begin = steady_clock::now();
  const int error = posix_spawn(&pid, program.c_str(), &actions, nullptr, argv, envp);
  in.Reset();
  char buffer[4096];
  const ssize_t n = error == 0 ? read(out.get(), buffer, sizeof buffer) : -1;
  const double first = MillisSince(begin);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoError("run " + program, error);
  while (read(out.get(), buffer, sizeof buffer) > 0) {
  }
  (void)waitpid(pid, nullptr, 0);
  const double end = MillisSince(begin);
  if (n <= 0) return Error{Code::kIo, 0, program + " printed nothing"};
  receipt.steps[kBareFirst].client_ms.push_back(first);
  receipt.steps[kBareEnd].client_ms.push_back(end);
  return OkStatus();
}

Result<std::optional<BenchSteps::Sample>> BenchSteps::Measure(size_t step, const char* function,
                                                              std::string_view start,
                                                              double Sample::*daemon_ms) {
  Rest();
  PULGA_ASSIGN_OR_RETURN(const Sample sample, Call(Name(function)));
  if (sample.start != start) {
    ++receipt.discarded;
    return std::optional<Sample>();
  }
  receipt.steps[step].daemon_ms.push_back(sample.*daemon_ms);
  receipt.steps[step].client_ms.push_back(sample.client_ms);
  return std::optional<Sample>(sample);
}

// Each step of the ladder from the state it begins in.
Status BenchSteps::MeasureStarts() {
  const auto first_byte = &Sample::first_byte_ms;
  const auto total = &Sample::total_ms;
  PULGA_RETURN_IF_ERROR(Status(Measure(kUnparked, "unparked", "cold", first_byte)));
  PULGA_RETURN_IF_ERROR(AwaitStep(Name("parked"), "parked"));
  PULGA_RETURN_IF_ERROR(Status(Measure(kParked, "parked", "parked", first_byte)));
  PULGA_RETURN_IF_ERROR(Status(Measure(kWarm, "warm", "warm", total)));
  PULGA_RETURN_IF_ERROR(AwaitStep(Name("thaw"), "frozen"));
  PULGA_RETURN_IF_ERROR(Status(Measure(kThaw, "thaw", "frozen", total)));
  PULGA_RETURN_IF_ERROR(AwaitStatus(Name("cold"), SpawnerIsGone));
  PULGA_ASSIGN_OR_RETURN(const std::optional<Sample> cold,
                         Measure(kCold, "cold", "cold", first_byte));
  if (cold) receipt.steps[kBuild].daemon_ms.push_back(cold->queue_ms);
  return OkStatus();
}

Status BenchSteps::ImportAgain() {
  Rest();
  const std::string tag = std::to_string(++imports_);
  const std::string ref = "pulga-bench-import:" + std::to_string(getpid()) + "-" + tag;
  const auto begin = steady_clock::now();
  PULGA_RETURN_IF_ERROR(Import(ref, "import " + ref));  // a layer that is not there yet
  receipt.steps[kImport].client_ms.push_back(MillisSince(begin));
  ClientRequest request;
  request.method = "DELETE";
  request.target = "/v1/images/" + PercentEncode(ref);
  PULGA_RETURN_IF_ERROR(Status(client_.Call(std::move(request))));
  images_.pop_back();
  return OkStatus();
}

Status BenchSteps::RunOnce() {
  PULGA_RETURN_IF_ERROR(Bare());
  PULGA_RETURN_IF_ERROR(MeasureStarts());
  return ImportAgain();
}

}  // namespace pulga::cli
