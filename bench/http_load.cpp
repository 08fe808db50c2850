// pulga-http-load: latency at one connection and throughput at many, several servers interleaved
// in one run, so that a drifting machine hits them alike.
//   pulga-http-load latency N GAP_MS NAME=PORT/PATH...   round robin, one request each
//   pulga-http-load throughput CONNECTIONS ROUNDS NAME=PORT/PATH...   0.5 s each, in turn
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "base/file_io.h"
#include "base/text.h"
#include "bench/http_client.h"
#include "bench/stats.h"

namespace pulga::bench {
namespace {

struct Target {
  std::string name;
  uint16_t port = 0;
  std::string path;
};

Result<Target> ParseTarget(const std::string& text) {
  const size_t equals = text.find('=');
  const size_t slash = text.find('/');
  if (equals == std::string::npos || slash == std::string::npos || slash < equals) {
    return Error{Code::kInvalidArgument, 0, "not NAME=PORT/PATH: " + text};
  }
  const auto port = ParseUint(std::string_view(text).substr(equals + 1, slash - equals - 1), 65535);
  if (!port) return Error{Code::kInvalidArgument, 0, "bad port in " + text};
  return Target{text.substr(0, equals), static_cast<uint16_t>(*port), text.substr(slash)};
}

Status Latency(size_t n, int gap_ms, const std::vector<Target>& targets) {
  std::vector<HttpConnection> connections;
  std::vector<Series> series;
  for (const Target& t : targets) {
    PULGA_ASSIGN_OR_RETURN(HttpConnection c, HttpConnection::Connect(t.port));
    connections.push_back(std::move(c));
    series.push_back({t.name, {}});
    for (int i = 0; i < 20; ++i) PULGA_RETURN_IF_ERROR(connections.back().Get(t.path));
  }
  for (size_t round = 0; round < n; ++round) {
    for (size_t i = 0; i < targets.size(); ++i) {
      if (gap_ms > 0) usleep(static_cast<useconds_t>(gap_ms) * 1000);
      const double begin = NowMicros();
      PULGA_RETURN_IF_ERROR(connections[i].Get(targets[i].path));
      series[i].microseconds.push_back(NowMicros() - begin);
      if (connections[i].status() != 200) {
        return Error{Code::kIo, 0,
                     targets[i].name + " answered " + std::to_string(connections[i].status())};
      }
    }
  }
  PrintJson(gap_ms > 0 ? "paced" : "tight", series);
  return OkStatus();
}

// Requests per second of `connections` busy connections for half a second.
Result<double> OneBurst(const Target& target, size_t connections) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  std::vector<std::unique_ptr<HttpConnection>> open;
  for (size_t i = 0; i < connections; ++i) {
    PULGA_ASSIGN_OR_RETURN(HttpConnection c, HttpConnection::Connect(target.port));
    open.push_back(std::make_unique<HttpConnection>(std::move(c)));
    PULGA_RETURN_IF_ERROR(SetNonBlocking(open.back()->fd()));
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.ptr = open.back().get();
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, open.back()->fd(), &event);
    PULGA_RETURN_IF_ERROR(open.back()->SendGet(target.path));
  }
  const double begin = NowMicros();
  const double end = begin + 500000;
  uint64_t done = 0;
  epoll_event events[64];
  while (NowMicros() < end) {
    const int n = epoll_wait(epoll.get(), events, 64, 100);
    for (int i = 0; i < n; ++i) {
      auto* connection = static_cast<HttpConnection*>(events[i].data.ptr);
      PULGA_ASSIGN_OR_RETURN(const bool complete, connection->ReadSome());
      if (!complete) continue;
      if (connection->status() != 200) {
        return Error{Code::kIo, 0,
                     target.name + " answered " + std::to_string(connection->status())};
      }
      ++done;
      PULGA_RETURN_IF_ERROR(connection->SendGet(target.path));
    }
  }
  return static_cast<double>(done) * 1e6 / (NowMicros() - begin);
}

Status Throughput(size_t connections, size_t rounds, const std::vector<Target>& targets) {
  std::vector<Series> per_request;  // microseconds per request, so that the statistics fit
  for (const Target& t : targets) per_request.push_back({t.name, {}});
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < targets.size(); ++i) {
      PULGA_ASSIGN_OR_RETURN(const double rps, OneBurst(targets[i], connections));
      per_request[i].microseconds.push_back(1e6 / rps);
    }
  }
  const double base = per_request.front().Quantile(0.5);
  for (const Series& s : per_request) {
    printf("{\"condition\":\"c=%zu\",\"name\":\"%s\",\"n\":%zu,\"rps_p50\":%.0f,\"ratio\":%.3f}\n",
           connections, s.name.c_str(), s.microseconds.size(), 1e6 / s.Quantile(0.5),
           base / s.Quantile(0.5));
  }
  return OkStatus();
}

Status Main(int argc, char** argv) {
  if (argc < 5) return Error{Code::kInvalidArgument, 0, "usage: see the top of http_load.cpp"};
  std::vector<Target> targets;
  for (int i = 4; i < argc; ++i) {
    PULGA_ASSIGN_OR_RETURN(Target t, ParseTarget(argv[i]));
    targets.push_back(std::move(t));
  }
  const auto first = static_cast<size_t>(atol(argv[2]));
  const int second = atoi(argv[3]);
  if (strcmp(argv[1], "latency") == 0) return Latency(first, second, targets);
  if (strcmp(argv[1], "throughput") == 0) {
    return Throughput(first, static_cast<size_t>(second), targets);
  }
  return Error{Code::kInvalidArgument, 0, std::string("no such measurement: ") + argv[1]};
}

}  // namespace
}  // namespace pulga::bench

int main(int argc, char** argv) {
  const pulga::Status status = pulga::bench::Main(argc, argv);
  if (status.ok()) return 0;
  fprintf(stderr, "pulga-http-load: %s\n", status.error().message.c_str());
  return 1;
}
