// One version built, started and dropped by a launcher some of whose calls fail, and what must hold
// whichever they are: an error names its step, and nothing ever ran half confined.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {

struct Life {
  Status built;
  bool started = false;
  bool ended = false;  // the launcher told so
  InstanceExit exit;
  std::string out;

  bool fine() const { return ended && exit.setup_step.empty() && exit.wait_status == 0; }
};

// Started in slot 0 and waited for.
inline void RunToEnd(LauncherWorld& world, Spawner& spawner, Recorder& events, Life* life) {
  Stdio stdio;
  StartOptions options = world.WithPipes(stdio);
  options.extra_args = {"status"};
  const size_t before = events.exits.size();
  life->started = spawner.Start(0, std::move(options)).ok();
  if (!life->started) return;
  EXPECT_TRUE(world.Until([&] { return events.exits.size() > before || !events.gone.empty(); }));
  life->out.resize(16384);
  const ssize_t got = read(stdio.out.get(), life->out.data(), life->out.size());
  life->out.resize(got > 0 ? static_cast<size_t>(got) : 0);
  life->ended = events.exits.size() > before;
  if (life->ended) life->exit = events.exits.back();
}

// The program is the probe.
inline Life LiveOnce(LauncherWorld& world, LauncherClient& client, const VersionSpec& spec) {
  Life life;
  Recorder events;
  std::unique_ptr<Spawner> spawner;
  bool answered = false;
  client.BuildVersion(spec, events, [&](Result<std::unique_ptr<Spawner>> result) {
    answered = true;
    life.built = Status(result);
    if (result.ok()) spawner = std::move(*result);
  });
  EXPECT_TRUE(world.Until([&] { return answered; }));
  if (spawner == nullptr) return life;
  RunToEnd(world, *spawner, events, &life);
  return life;
}

inline void CheckLife(const Life& life, const std::string& where) {
  EXPECT_TRUE(life.built.ok() || !life.built.error().message.empty()) << where;
  if (!life.out.empty()) {  // it ran: then confined
    EXPECT_EQ(StatusField(life.out, "Seccomp"), "2") << where;
    EXPECT_EQ(StatusField(life.out, "CapBnd"), "0000000000000000") << where;
    EXPECT_EQ(StatusField(life.out, "NoNewPrivs"), "1") << where;
  }
  if (!life.ended || life.exit.setup_step.empty()) return;
  EXPECT_NE(life.exit.sys_errno, 0) << where << ": " << life.exit.setup_step;
  EXPECT_EQ(life.out, "") << where << ": it ran though " << life.exit.setup_step << " failed";
}

}  // namespace pulga::testing
