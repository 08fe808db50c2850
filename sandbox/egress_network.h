// The launcher's hold on outbound network: the router's namespace (by descriptors alone, so that it
// ends with the launcher), who is attached to it with which address, the router process and the
// short-lived net processes that change interfaces and rules, one at a time (net/net_job.h). The
// launcher itself speaks no netlink. Loop thread; every result comes later, by callback.
// On failure nothing of what was asked is left. Source: docs/network.md.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "base/process.h"
#include "net/address_plan.h"
#include "net/net_job.h"
#include "net/nft_rules.h"
#include "net/pin_table.h"
#include "net/router_wire.h"
#include "sandbox/access_spec.h"
#include "sandbox/net_child.h"

namespace pulga {

// IPv6 and what no list can open are refused, naming the entry.
Result<std::vector<AllowEntry>> EgressRules(const std::vector<NetworkRule>& rules);

class EgressNetwork {
 public:
  struct Parts {
    int admin_fd = -1;  // the executables; -1: there is none
    int router_fd = -1;
    // Made at the first call for each; lives as long as this does.
    std::function<Result<const CgroupJoin*>(NetHelper)> cgroup;
    // Into the cgroup of that v2 directory, -1: none.
    std::function<Result<PidFd>(const std::function<int()>&, int cgroup_fd)> fork;
    std::function<Status(PidFd, std::function<void(const ExitInfo&)>)> watch_child;
    std::function<void(int pid)> kill_child;
  };
  EgressNetwork(EventLoop& loop, Parts parts) : loop_(loop), parts_(std::move(parts)) {}
  ~EgressNetwork();

  // Makes the router, once; a later call must ask for the same plan. `done` gets a duplicate of the
  // gateway's listening socket.
  void Open(const NetworkPlan& plan, std::function<void(Result<UniqueFd>)> done);
  bool is_open() const { return state_ == State::kOpen; }
  Ipv4 router() const { return RouterAddress(plan_.range); }

  // Into the network namespace `netns`; `done` gets the port's number, for Detach. What the ports
  // of one version use counts together.
  struct Attachment {
    UniqueFd netns;
    uint64_t version = 0;
    std::vector<AllowEntry> allow;
  };
  void Attach(Attachment what, std::function<void(Result<uint32_t>)> done);
  void Detach(uint32_t index);

 private:
  enum class State : uint8_t { kClosed, kOpening, kOpen };
  struct Job {
    NetJob job;
    std::string rules;
    std::function<std::string()> compose;  // the rules, when it is their turn
    UniqueFd target;
    std::function<void(const Status&, std::vector<UniqueFd>)> done;
  };
  struct Attached {
    NetworkPort port;
    uint64_t serial = 0;  // tells apart who had this port after each other
    uint64_t version = 0;
    std::vector<AllowEntry> allow;
    PinTable pins;
    uint64_t refused = 0;  // of what it asked for, since that was last logged
    TimePoint refused_logged{};
    bool leaving = false;
    Duration pause{};  // before the next try to take it away
    EventLoop::TimerId again = 0;
  };

  struct AskedPin {
    Pin pin;
    TimePoint until{};
    uint64_t serial = 0;
    RouterOrder answer;
    bool heard = true;  // by the router that asked
  };

  void Enqueue(Job job);
  void RunNext();
  Result<PidFd> Fork(NetHelper helper, NetChild& child);
  Status StartJob(Job& job);
  void OnJobEnd(const ExitInfo& info);
  void EndJob(const Status& status, std::vector<UniqueFd> fds);
  void OnOpened(const Status& status, std::vector<UniqueFd> fds);
  void GiveUpOpening(const Status& why);
  void AnswerOpens(const Status& status);
  void RunRules(std::function<std::string()> compose, std::function<void(const Status&)> done);
  void TakeAway(uint32_t index);
  void GiveBack(uint32_t index);

  void StartRouter();
  Status TryStartRouter();
  void OnRouterEnd(const ExitInfo& info);
  void OnRouterNotice();
  void OnPin(const RouterNotice& notice);
  void QueuePins();
  std::string ComposePins();
  void AnswerPins(const Status& status, bool began);
  Attached* AskerOf(const AskedPin& asked);  // nullptr: it is gone, or somebody else has its port
  void OnRefused(const RouterNotice& notice);
  std::map<uint32_t, Attached>::iterator FindByAddress(uint32_t address);
  void OnHostAddresses(const RouterNotice& notice);
  void TellRouter(const RouterOrder& order);
  void StopRouter();

  EventLoop& loop_;
  Parts parts_;
  State state_ = State::kClosed;
  NetworkPlan plan_;
  std::vector<std::function<void(Result<UniqueFd>)>> opens_;
  std::vector<UniqueFd> fds_;  // by RouterFd, once open
  std::optional<PortPool> pool_;
  std::map<uint32_t, Attached> attached_;
  uint64_t next_serial_ = 1;
  std::vector<AskedPin> pins_waiting_;  // for the one job that opens them all
  std::vector<AskedPin> pins_opening_;  // by the job that runs
  bool pins_queued_ = false;
  std::vector<Ipv4> host_addresses_;
  bool host_addresses_queued_ = false;
  std::deque<Job> jobs_;  // the first one runs
  bool running_ = false;
  MessageSocket answer_;  // of the running job
  int running_pid_ = -1;
  EventLoop::TimerId job_timer_ = 0;
  bool job_late_ = false;
  MessageSocket router_;
  int router_pid_ = -1;
  Status router_failed_;  // what it said of itself before it ended
  EventLoop::TimerId router_timer_ = 0;
  EventLoop::TimerId opening_timer_ = 0;
};

}  // namespace pulga
