// Runs the unpacker's ingest in this process, unconfined, over a pipe as an upload would feed it;
// and layers that exist, as a list.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/file_io.h"
#include "images/archive_index.h"
#include "images/ingest.h"
#include "images/job_events.h"
#include "images/layer_claims.h"

namespace pulga::testing {

struct Ingested {
  Status status;
  std::vector<NamedMember> members;
  ArchiveIndex index;
  std::string plain;  // what it spooled
};

// `pieces` go into the pipe one write each; then it is closed.
inline Ingested IngestPieces(const std::vector<std::string>& pieces, const UnpackOrder& order) {
  signal(SIGPIPE, SIG_IGN);  // an early end
  int input[2];
  int channel[2];
  EXPECT_EQ(pipe2(input, O_CLOEXEC) + pipe2(channel, O_CLOEXEC), 0);
  UniqueFd read_end(input[0]);
  const UniqueFd told(channel[0]);
  const UniqueFd spool(memfd_create("spool", MFD_CLOEXEC));
  Ingested out;
  std::thread feeder([&pieces, write_end = UniqueFd(input[1])] {
    for (const std::string& piece : pieces) {
      if (!WriteAll(write_end.get(), piece).ok()) return;
    }
  });
  std::thread unpacker([&, tell = UniqueFd(channel[1]), from = UniqueFd(dup(read_end.get()))] {
    out.status = RunIngest(order, from.get(), spool.get(), tell.get());
  });
  JobEventReader reader(told.get());
  while (true) {
    const auto event = reader.Next();
    if (!event.ok() || !event->has_value()) break;
    auto member = DecodeMember((*event)->payload);
    EXPECT_TRUE(member.has_value());
    if (!member) break;
    out.members.push_back(*member);
    out.index.Add(member->name, member->member);
  }
  unpacker.join();
  read_end.Reset();  // an early end must not leave the feeder hanging
  feeder.join();
  lseek(spool.get(), 0, SEEK_SET);
  out.plain = ReadFd(spool.get(), 256 << 20).value();
  return out;
}

inline Ingested Ingest(const std::string& bytes) {
  UnpackOrder order;
  order.max_entries = 1000;
  order.max_bytes = 64 << 20;
  return IngestPieces({bytes}, order);
}

class KnownLayers final : public LayerClaims {
 public:
  std::optional<LayerRecord> Find(const LayerId& id) override {
    const auto it = layers.find(id);
    return it == layers.end() ? std::nullopt : std::optional(it->second);
  }
  std::optional<LayerRecord> FindOrMake(const LayerId& id) override { return Find(id); }
  void Made(const LayerId& id, const LayerRecord* layer) override {
    if (layer != nullptr && keeps_what_is_made) layers[id] = *layer;
  }

  std::map<LayerId, LayerRecord> layers;
  bool keeps_what_is_made = false;
};

}  // namespace pulga::testing
