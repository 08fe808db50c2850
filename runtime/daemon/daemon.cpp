#include "runtime/daemon/daemon.h"

#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "base/work_queue.h"
#include "runtime/accounts/sign_in.h"
#include "runtime/board.h"
#include "runtime/callback_post.h"
#include "runtime/daemon/config_limits.h"
#include "runtime/daemon/data_dir.h"
#include "runtime/daemon/keeper_link.h"
#include "runtime/daemon/notify.h"
#include "runtime/engine_impl.h"
#include "runtime/function_service.h"
#include "runtime/habit_keeper.h"
#include "runtime/image_pulls.h"
#include "runtime/image_service.h"
#include "runtime/log_store.h"
#include "runtime/namespace_service.h"
#include "runtime/secrets/secret_sandbox.h"
#include "runtime/sense/board_sense.h"
#include "runtime/state_store.h"
#include "runtime/tasks/schedule_keeper.h"
#include "runtime/tasks/task_service.h"
#include "runtime/unpack_bridge.h"
#include "runtime/volume_service.h"
#include "sandbox/apparmor.h"
#include "sandbox/kernel_features.h"
#include "sandbox/launcher_client.h"

namespace pulga {
namespace {

constexpr Duration kTrimInterval = std::chrono::seconds(30);
constexpr size_t kTrimBytes = 2 << 20;
constexpr Duration kCollectInterval = std::chrono::minutes(1);
constexpr uint32_t kMostPutOff = 10;  // collections in a row, under pressure
// After the drain's deadline every call has its outcome; this is for writing it out.
constexpr Duration kFlushTime = std::chrono::seconds(2);

class Daemon {
 public:
  Daemon(ConfigSources sources, DaemonConfig config)
      : sources_(std::move(sources)),
        config_(std::move(config)),
        logs_(config_.log_bytes_per_function) {}
  ~Daemon() { TearDown(); }

  Status Start(const DaemonOptions& options, const FrontFactory& make_front);
  // The exit status: only who was told to stop is not started anew.
  int Run() {
    loop_->Run();
    return told_ ? 0 : 1;
  }

 private:
  Status OpenState();
  Status ReadMachine();
  void BuildServices();
  void BuildUploads();
  void BuildTasks();
  Status Listen(const FrontFactory& make_front);
  void OnLauncher(UniqueFd socket);
  void OnLauncherLost();
  void ServeGateway(UniqueFd gateway);
  void Sweep();
  void SweepLogs();
  void OnSignal(int signo);
  void Reload();
  void BeginStop();
  void StopWhenQuiet();
  void ScheduleTrim();
  void ScheduleCollection();
  void TearDown();
  void BuildSense();
  std::string UserOfImage(const std::string& digest) const;
  void PullForDeploy(const std::string& ref, std::function<void(ImportReport)> done);

  const ConfigSources sources_;
  DaemonConfig config_;
  SystemClock clock_;
  Board board_;
  std::vector<Feature> features_;
  std::string admin_key_;
  BasicLogin gateway_login_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<StateStore> store_;
  StoredState stored_;  // from Open to Load
  FunctionLogs logs_;
  ImageCatalog catalog_;
  FunctionRegistry registry_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<WorkQueue> spool_;
  std::unique_ptr<LogStore> log_store_;
  std::unique_ptr<LauncherClient> sandbox_;
  std::unique_ptr<SecretSandbox> with_secrets_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<UnpackBridge> runner_;
  std::unique_ptr<ImporterWorker> worker_;
  std::unique_ptr<ImageService> images_;
  std::unique_ptr<ImagePulls> pulls_;
  std::unique_ptr<ResumableUploads> uploads_;
  std::unique_ptr<VolumeService> volumes_;
  std::unique_ptr<SecretService> secrets_;
  std::unique_ptr<AccountService> accounts_;
  std::unique_ptr<SignIn> sign_in_;
  std::unique_ptr<FunctionService> functions_;
  std::unique_ptr<HabitKeeper> habits_;
  std::unique_ptr<NamespaceService> namespaces_;
  std::unique_ptr<TaskService> tasks_;
  std::unique_ptr<ScheduleKeeper> schedules_;
  std::unique_ptr<EngineImpl> engine_;
  std::unique_ptr<BoardSense> sense_;
  std::unique_ptr<KeeperLink> keeper_;
  std::unique_ptr<Front> front_;
  uint64_t launchers_ = 0;
  uint32_t collections_put_off_ = 0;
  bool stopping_ = false;
  bool told_ = false;  // to stop, by a signal
  bool drained_ = false;
};

void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    LogWarning(LastError("raise the limit of open files").message);
  }
}

// More connections than there are descriptors would leave none for starting functions.
DaemonConfig WithinFileLimit(DaemonConfig config) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return config;
  const uint32_t room = ConnectionsWithin(limit.rlim_cur);
  if (room >= config.max_connections) return config;
  LogWarning("max-connections is " + std::to_string(room) + " instead of " +
             std::to_string(config.max_connections) + ": only " + std::to_string(limit.rlim_cur) +
             " files may be open (LimitNOFILE=, ulimit -Hn)");
  config.max_connections = room;
  return config;
}

std::set<uint16_t> ManagementPorts(const std::vector<std::string>& bound) {
  std::set<uint16_t> ports;
  for (const std::string& address : bound) {
    const auto port = ParseUint(address.substr(address.rfind(':') + 1), 65535);
    if (address.rfind("unix:", 0) != 0 && port) ports.insert(static_cast<uint16_t>(*port));
  }
  return ports;
}

Status Daemon::ReadMachine() {
  PULGA_ASSIGN_OR_RETURN(board_, ReadBoard());
  board_.budget_bytes =
      config_.memory_budget_bytes != 0 ? config_.memory_budget_bytes : DefaultMemoryBudget(board_);
  features_ = ProbeKernelFeatures();
  ShowUse(ParseAppArmorUse(config_.apparmor).value_or(AppArmorUse::kAuto), features_);
  return OkStatus();
}

Status Daemon::OpenState() {
  PULGA_RETURN_IF_ERROR(PrepareDataDir(config_.data_dir));
  RemoveLeftovers(config_.data_dir);
  PULGA_ASSIGN_OR_RETURN(store_, StateStore::Open(config_.data_dir));
  PULGA_ASSIGN_OR_RETURN(stored_, store_->Load());
  // After the database: the key's presence says that there was one.
  PULGA_ASSIGN_OR_RETURN(admin_key_, LoadAdminKey(config_.data_dir));
  PULGA_ASSIGN_OR_RETURN(gateway_login_, LoadGatewayLogin(config_.data_dir));
  for (const ImageRecord& image : stored_.images) catalog_.Add(image);
  return OkStatus();
}

std::string Daemon::UserOfImage(const std::string& digest) const {
  const std::string function = registry_.UserOf(digest);
  return function.empty() ? volumes_->UserOf(digest) : function;
}

// A deploy goes on without its client, and so does its pull.
void Daemon::PullForDeploy(const std::string& ref, std::function<void(ImportReport)> done) {
  const auto pull = std::make_shared<std::unique_ptr<Engine::Pull>>();
  *pull = pulls_->Start(
      {ref, std::nullopt}, [](const PullProgress&) {},
      [pull, done = std::move(done)](ImportReport report) {
        pull->reset();
        done(std::move(report));
      });
}

void Daemon::BuildUploads() {
  ResumableUploads::Hooks hooks;
  hooks.room = [this] { return images_->imports().CheckRoom(images_->LimitsForUpload().at_once); };
  hooks.find = [this](const std::string& digest) { return catalog_.Find(digest); };
  hooks.import = [this](UniqueFd archive, const ImportOptions& options, auto done) {
    auto work = [this, input = std::make_shared<UniqueFd>(std::move(archive)),
                 limits = images_->LimitsForUpload().import](const ImportOptions& order) {
      return worker_->Import(std::move(*input), order, limits, {});
    };
    return images_->imports().Run(options, std::move(work), std::move(done));
  };
  uploads_ = std::make_unique<ResumableUploads>(*loop_, clock_, config_.data_dir + "/uploads",
                                                std::move(hooks));
  uploads_->SetLimits(LimitsOfUploads(config_));
}

void Daemon::BuildTasks() {
  TaskParts parts{*loop_, clock_, config_.data_dir, {}, {}, {}, {}, {}, {}, {}, {}};
  parts.reserve_bytes = [this] { return config_.reserve_bytes; };
  parts.version = [this](const FunctionKey& key) {
    const FunctionEntry* entry = registry_.Find(key);
    return entry == nullptr ? VersionPtr() : entry->active;
  };
  parts.invoke = [this](InvocationRequest request, InvocationObserver& observer) {
    return engine_->Invoke(std::move(request), observer);
  };
  parts.room = [this] {
    const DispatcherTotals totals = dispatcher_->Totals();
    const uint32_t at_once = config_.tasks_at_once != 0 ? config_.tasks_at_once : board_.cores;
    return BoardRoom{at_once, sense_->level(), totals.open_calls, totals.calls_need_room};
  };
  parts.waiting_calls = [this](const FunctionKey& key) { return dispatcher_->Glance(key).queued; };
  parts.networks = [this] { return config_.callback_networks; };
  parts.callback_key = [this] { return config_.callback_key; };
  parts.post = MakeCallbackPost(*loop_, *sandbox_, parts.networks);
  tasks_ = std::make_unique<TaskService>(std::move(parts), LimitsOfTasks(config_));
  schedules_ = std::make_unique<ScheduleKeeper>(
      ScheduleParts{*loop_, clock_, *tasks_, [this](const auto& tell) {
                      for (const auto& [key, entry] : registry_.functions()) tell(*entry.active);
                    }});
}

void Daemon::BuildSense() {
  BoardSense::Hooks hooks;
  hooks.tell = [this](const PressureVerdict& verdict) {
    dispatcher_->SetPressure(verdict.level, verdict.why);
  };
  hooks.busy = [this] { return dispatcher_->Totals().instances > 0; };
  sense_ = std::make_unique<BoardSense>(*loop_, clock_,
                                        BoardReader(config_.board_root, config_.data_dir),
                                        OptionsOfSense(config_), std::move(hooks));
}

void Daemon::BuildServices() {
  storage_ = std::make_unique<WorkQueue>("pulga-storage", *loop_);
  spool_ = std::make_unique<WorkQueue>("pulga-spool", *loop_);
  log_store_ = std::make_unique<LogStore>(
      *loop_, *storage_, LogFiles(config_.data_dir, config_.log_bytes_per_function));
  logs_.SetStore(log_store_.get());
  DispatcherConfig dispatch;
  dispatch.memory_budget_bytes = board_.budget_bytes;
  dispatch.max_instances = config_.max_instances;
  dispatch.idle = config_.idle;
  dispatch.drain_timeout = config_.drain_timeout;
  with_secrets_ = std::make_unique<SecretSandbox>(*sandbox_);
  dispatcher_ = Dispatcher::Create(dispatch, *loop_, clock_, *with_secrets_, logs_);
  runner_ = std::make_unique<UnpackBridge>(*loop_, *sandbox_);
  worker_ = std::make_unique<ImporterWorker>(*runner_, config_.data_dir);
  images_ = std::make_unique<ImageService>(
      ImageParts{*loop_, clock_, *storage_, *spool_, *store_, catalog_, *sandbox_, *worker_,
                 config_.data_dir},
      LimitsOfImages(config_),
      ImageService::Hooks{[this](const std::string& digest) { return UserOfImage(digest); },
                          [this] { functions_->Recheck(); }, [this] { return uploads_->List(); },
                          [this](const std::string& id) { uploads_->Remove(id, [](Status) {}); }});
  pulls_ = std::make_unique<ImagePulls>(*loop_, *runner_, images_->imports(), config_.data_dir);
  pulls_->SetLimits(images_->LimitsForUpload(), AccessToRegistries(config_));
  BuildUploads();
  volumes_ = std::make_unique<VolumeService>(
      VolumeParts{*loop_, clock_, *storage_, *store_, catalog_, *sandbox_, config_.data_dir,
                  [this](const FunctionKey& volume) { return registry_.UsersOfVolume(volume); }},
      config_.reserve_bytes);
  BuildSense();
  secrets_ = std::make_unique<SecretService>(
      SecretParts{*loop_, clock_, *storage_, *store_, config_.data_dir,
                  [this](const FunctionKey& secret) { return registry_.UsersOfSecret(secret); }});
  with_secrets_->SetService(*secrets_);
  accounts_ = std::make_unique<AccountService>(AccountParts{*loop_, clock_, *storage_, *store_});
  sign_in_ = std::make_unique<SignIn>(*loop_, clock_, *accounts_);
  functions_ = std::make_unique<FunctionService>(
      FunctionParts{*loop_, clock_, *storage_, *store_, catalog_, registry_, *dispatcher_, logs_,
                    board_, features_, *volumes_, *secrets_,
                    [this](const std::string& ref, std::function<void(ImportReport)> done) {
                      PullForDeploy(ref, std::move(done));
                    }},
      LimitsOfFunctions(config_));
  habits_ = std::make_unique<HabitKeeper>(
      HabitParts{*loop_, *storage_, *store_, *dispatcher_, config_.data_dir});
  namespaces_ =
      std::make_unique<NamespaceService>(NamespaceParts{*storage_, *store_, registry_, *secrets_});
  BuildTasks();
  const EngineParts parts{*loop_,         clock_,
                          catalog_,       *images_,
                          *pulls_,        *uploads_,
                          registry_,      *volumes_,
                          *functions_,    *dispatcher_,
                          logs_,          admin_key_,
                          gateway_login_, board_.budget_bytes,
                          features_,      *sense_,
                          *habits_,       *namespaces_,
                          *tasks_,        *secrets_,
                          *accounts_,     *sign_in_,
                          *storage_};
  engine_ = std::make_unique<EngineImpl>(parts);
}

Status Daemon::Listen(const FrontFactory& make_front) {
  PULGA_ASSIGN_OR_RETURN(front_, make_front(*loop_, *engine_, WithinFileLimit(config_)));
  // After the front's own prepare step, so that it sees what that one finished.
  loop_->AddPrepare([this] {
    StopWhenQuiet();
    return Duration::max();
  });
  return OkStatus();
}

Status Daemon::Start(const DaemonOptions& options, const FrontFactory& make_front) {
  UniqueFd launcher(options.launcher_fd);
  UniqueFd keeper(options.keeper_fd);
  RaiseFileLimit();
  PULGA_RETURN_IF_ERROR(ReadMachine());
  PULGA_RETURN_IF_ERROR(OpenState());
  PULGA_ASSIGN_OR_RETURN(loop_, EventLoop::Create());
  signal(SIGPIPE, SIG_IGN);
  // The user signals mean nothing to us, but must not end us either.
  PULGA_RETURN_IF_ERROR(loop_->OnSignals({SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2},
                                         [this](int signo) { OnSignal(signo); }));
  sandbox_ = std::make_unique<LauncherClient>(*loop_);
  sandbox_->SetOnGone([this] { OnLauncherLost(); });
  sandbox_->SetOnGrants(
      [this](std::vector<GrantLine> grants) { engine_->SetGrants(std::move(grants)); });
  BuildServices();
  PULGA_RETURN_IF_ERROR(uploads_->Open());
  volumes_->Load(stored_.volumes);  // functions need them
  secrets_->Load(stored_.secrets);
  accounts_->Load(std::move(stored_.users), std::move(stored_.keys));
  habits_->Load(std::move(stored_.habits));  // likewise
  namespaces_->Load(stored_.namespaces);
  functions_->Load(stored_.functions);
  SweepLogs();
  stored_ = {};
  PULGA_RETURN_IF_ERROR(tasks_->Load());
  keeper_ = std::make_unique<KeeperLink>(
      *loop_, std::move(keeper),
      KeeperLink::Events{[this](UniqueFd socket) { OnLauncher(std::move(socket)); },
                         [this] {
                           LogError("the keeper is gone: stopping");
                           BeginStop();
                         }});
  PULGA_RETURN_IF_ERROR(keeper_->Start());
  // Before the launcher, whose first version with outbound network is told our ports.
  PULGA_RETURN_IF_ERROR(Listen(make_front));
  sandbox_->SetNetwork({config_.network_range, ManagementPorts(front_->bound())},
                       [this](UniqueFd gateway) { ServeGateway(std::move(gateway)); });
  OnLauncher(std::move(launcher));
  sense_->Start();
  ScheduleTrim();
  ScheduleCollection();
  LogInfo("pulga " PULGA_VERSION " serves " + std::to_string(registry_.functions().size()) +
          " functions from " + std::to_string(catalog_.size()) + " images; instances may use " +
          HumanBytes(board_.budget_bytes));
  keeper_->TellReady();
  NotifyServiceManager("READY=1");
  return OkStatus();
}

// --- the launcher

void Daemon::OnLauncher(UniqueFd socket) {
  const Status adopted = sandbox_->AdoptLauncher(std::move(socket));
  if (!adopted.ok()) return LogError("adopt the launcher: " + adopted.error().message);
  ++launchers_;
  LogInfo(launchers_ == 1 ? "the launcher is there" : "the launcher is back");
  engine_->SetHealth({"ok", launchers_ - 1});
  dispatcher_->OnSandboxAvailable();
  Sweep();
  volumes_->Sweep();
  uploads_->ImportComplete();
  tasks_->Resume();
  schedules_->Start();
}

void Daemon::OnLauncherLost() {
  if (stopping_) return;
  LogWarning("the launcher died, and all instances with it; waiting for the next one");
  engine_->SetHealth({"degraded: the launcher is restarting", launchers_});
}

void Daemon::ServeGateway(UniqueFd gateway) {
  if (front_ == nullptr) return;
  const Status served = front_->ServeGateway(std::move(gateway));
  if (!served.ok()) LogError("serve functions at the gateway: " + served.error().message);
}

void Daemon::Sweep() {
  images_->Sweep([](Status done) {
    if (done.ok()) return;
    LogWarning("the layers on disk could not be compared: " + done.error().message);
  });
}

void Daemon::SweepLogs() {
  std::set<FunctionKey> functions;
  for (const auto& [key, entry] : registry_.functions()) functions.insert(key);
  log_store_->Sweep(std::move(functions));
}

// --- signals

void Daemon::OnSignal(int signo) {
  if (signo == SIGHUP) return Reload();
  if (signo != SIGTERM && signo != SIGINT) return LogDebug("ignored signal " + SignalName(signo));
  // The first one after the keeper's end is the kernel's, about the same (PR_SET_PDEATHSIG).
  if (!std::exchange(told_, true) && stopping_) return;
  if (stopping_) {
    LogWarning("told to stop twice: stopping now");
    loop_->Stop();
    return;
  }
  LogInfo("stopping");
  BeginStop();
}

void Daemon::Reload() {
  const auto fresh = LoadConfig(sources_);
  if (!fresh.ok()) {
    return LogError("reload refused, the old settings stay: " + fresh.error().message);
  }
  std::vector<std::string> ignored;
  config_ = MergeReloaded(config_, *fresh, &ignored);
  SetLogLevel(config_.log_level);
  images_->SetLimits(LimitsOfImages(config_));
  pulls_->SetLimits(images_->LimitsForUpload(), AccessToRegistries(config_));
  uploads_->SetLimits(LimitsOfUploads(config_));
  volumes_->SetReserve(config_.reserve_bytes);
  tasks_->SetLimits(LimitsOfTasks(config_));
  functions_->SetLimits(LimitsOfFunctions(config_));
  if (!(OptionsOfSense(config_) == sense_->options())) sense_->SetOptions(OptionsOfSense(config_));
  front_->Reload(config_);
  LogInfo("settings reloaded");
  if (!ignored.empty()) LogWarning("changed, but only read at start: " + Join(ignored, ", "));
}

void Daemon::BeginStop() {
  if (std::exchange(stopping_, true)) return;
  NotifyServiceManager("STOPPING=1");
  engine_->BeginStopping();
  runner_->Stop();
  pulls_->Stop();
  uploads_->Stop();
  schedules_->Stop();
  tasks_->BeginStopping();
  const TimePoint deadline = loop_->Now() + config_.stop_timeout;
  if (front_ != nullptr) front_->StopAccepting();
  dispatcher_->Drain(deadline, [this] { drained_ = true; });
  loop_->CallAt(deadline + kFlushTime, [this] {
    LogWarning("some connections would not end: closing them");
    loop_->Stop();
  });
}

// Runs before each wait of the loop.
void Daemon::StopWhenQuiet() {
  if (stopping_ && drained_ && front_->open_requests() == 0) {
    // Posted: stopping from here would still wait once for an event that may never come.
    loop_->Post([this] { loop_->Stop(); });
  }
}

void Daemon::ScheduleTrim() {
  loop_->CallAfter(kTrimInterval, [this] {
    // What a burst left on the heap goes back to the board, but never while calls are open.
    if (front_->open_requests() == 0 && mallinfo2().fordblks > kTrimBytes) malloc_trim(0);
    ScheduleTrim();
  });
}

void Daemon::ScheduleCollection() {
  loop_->CallAfter(kCollectInterval, [this] {
    if (stopping_) return;
    // A full disk waits no longer than this for a board that has worse to do.
    const bool busy = sense_->level() >= PressureLevel::kDelay;
    if (busy && ++collections_put_off_ < kMostPutOff) return ScheduleCollection();
    collections_put_off_ = 0;
    storage_->Run([this] { return store_->KeepBallast(), true; }, [](bool) {});
    images_->Collect([this] { ScheduleCollection(); });
  });
}

// Everything that may still call back ends before what it would call.
void Daemon::TearDown() {
  if (loop_ == nullptr) return;
  if (runner_ != nullptr) runner_->Stop();
  if (habits_ != nullptr) habits_->Save();
  if (accounts_ != nullptr) accounts_->SaveUses();
  logs_.SetStore(nullptr);
  log_store_.reset();
  int busy = 0;
  for (WorkQueue* queue : {spool_.get(), storage_.get()}) {
    if (queue == nullptr) continue;
    ++busy;
    queue->Run([] { return true; }, [&busy](bool) { --busy; });
  }
  if (images_ != nullptr) images_->StopImports();
  while (busy > 0 || (images_ != nullptr && images_->importing())) {
    loop_->RunOnce(std::chrono::seconds(1));
  }
  storage_.reset();
  spool_.reset();
  store_.reset();  // before the sandbox: without us the launcher ends, and the keeper all of it
  front_.reset();  // the loop, whose turns it takes part in, does not run any more
  schedules_.reset();
  tasks_.reset();  // with the calls it makes
  engine_.reset();
  namespaces_.reset();
  habits_.reset();
  sense_.reset();
  functions_.reset();
  sign_in_.reset();
  accounts_.reset();
  secrets_.reset();
  volumes_.reset();
  pulls_.reset();
  uploads_.reset();
  images_.reset();
  dispatcher_.reset();
  with_secrets_.reset();
  keeper_.reset();
  sandbox_.reset();
}

}  // namespace

int RunDaemon(const DaemonOptions& options, const FrontFactory& make_front) {
  SetLogTag("daemon");
  auto config = LoadConfig(options.sources);
  if (!config.ok()) {
    LogError(config.error().message);
    return 2;
  }
  SetLogLevel(config->log_level);
  if (options.keeper_fd < 0 || options.launcher_fd < 0) {
    LogError("started without a keeper: use 'pulga serve'");
    return 2;
  }
  Daemon daemon(options.sources, std::move(config).value());
  const Status started = daemon.Start(options, make_front);
  if (!started.ok()) {
    LogError("can not start: " + started.error().message);
    return 1;
  }
  const int status = daemon.Run();
  LogInfo("stopped");
  return status;
}

}  // namespace pulga
