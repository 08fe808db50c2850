// The fixture of tests that have a running launcher do unpack jobs, with the real unpacker.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "base/file_io.h"
#include "images/job_events.h"
#include "images/unpack_wire.h"
#include "tests/kernel/launcher_fixture.h"
#include "tests/support/archive_builder.h"

namespace pulga::testing {

class LauncherUnpack : public LauncherTest {
 protected:
  UniqueFd FileOf(const std::string& bytes) {
    UniqueFd fd = std::move(OpenUnnamedFile(world_.data())).value();
    EXPECT_TRUE(WriteAll(fd.get(), bytes).ok());
    lseek(fd.get(), 0, SEEK_SET);
    return fd;
  }
  Status Run(UnpackJob job) {
    output_ = FileOf("");
    if (job.kind != UnpackKind::kRemove) job.output.Reset(dup(output_.get()));
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    channel_.Reset(fds[0]);
    job.channel.Reset(fds[1]);
    Status out;
    bool done = false;
    world_.client().RunUnpack(std::move(job), [&](const Status& status) {
      out = status;
      done = true;
    });
    EXPECT_TRUE(world_.Until([&] { return done; }));
    return out;
  }
  std::string Output() {
    lseek(output_.get(), 0, SEEK_SET);
    return ReadFd(output_.get(), 1 << 20).value();
  }
  UnpackJob LayerJob(const std::string& tar, const LayerId& target) {
    UnpackOrder order;
    order.kind = UnpackKind::kUnpackLayer;
    order.size = tar.size();
    order.diff_id = Sha256Of(tar);
    order.max_entries = 1000;
    order.max_bytes = order.max_stream = 1 << 24;
    UnpackJob job;
    job.kind = UnpackKind::kUnpackLayer;
    job.request = order.Encode();
    job.parents = {world_.base_layer()};
    job.target = target;
    job.input = FileOf(tar);
    return job;
  }
  static LayerId Id(uint8_t fill) {
    LayerId id;
    id.bytes.fill(fill);
    return id;
  }
  std::string PathOf(const LayerId& id) { return world_.data() + "/layers/" + id.Hex(); }

  // What it told; blocks until nobody can tell any more.
  std::string Told() {
    JobEventReader reader(channel_.get());
    std::string out;
    while (true) {
      const auto event = reader.Next();
      if (!event.ok() || !event->has_value()) return out;
      out += (*event)->payload;
    }
  }

  UniqueFd output_;
  UniqueFd channel_;
};

}  // namespace pulga::testing
