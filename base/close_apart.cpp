#include "base/close_apart.h"

#include <sched.h>

#include <memory>
#include <system_error>
#include <thread>

#include "base/sys.h"
#include "base/work_queue.h"

namespace pulga {
namespace {

struct Meeting {
  Handoff<bool> shared;
  Handoff<bool> closed;
};

}  // namespace

void CloseApart(UniqueFd fd) {
  const auto meeting = std::make_shared<Meeting>();
  try {
    if (sys::Faulted()) return;
    std::thread([meeting] {
      meeting->shared.Set(unshare(CLONE_FILES) == 0);
      meeting->closed.Wait();
    }).detach();
  } catch (const std::system_error&) {
    return;
  }
  meeting->shared.Wait();
  fd.Reset();
  meeting->closed.Set(true);
}

}  // namespace pulga
