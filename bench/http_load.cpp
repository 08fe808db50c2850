// pulga-http-load: latency at one connection and throughput at many, several servers interleaved
// in one run, so that a drifting machine hits them alike.
//   pulga-http-load latency N GAP_MS NAME=PORT/PATH...   round robin, one request each
//   pulga-http-load throughput CONNECTIONS ROUNDS NAME=PORT/PATH...   0.5 s each, in turn
//   pulga-http-load burst CONNECTIONS ROUNDS NAME=PORT/PATH...   one request on each, all at once
// A NAME that ends in +BYTES posts a body of so many.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
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
  std::string request;
};

Result<Target> ParseTarget(const std::string& text) {
  const size_t equals = text.find('=');
  const size_t slash = text.find('/');
  if (equals == std::string::npos || slash == std::string::npos || slash < equals) {
    return Error{Code::kInvalidArgument, 0, "not NAME=PORT/PATH: " + text};
  }
  const auto port = ParseUint(std::string_view(text).substr(equals + 1, slash - equals - 1), 65535);
  if (!port) return Error{Code::kInvalidArgument, 0, "bad port in " + text};
  const size_t plus = text.find('+');
  size_t body = 0;
  if (plus < equals) {
    const auto bytes = ParseUint(std::string_view(text).substr(plus + 1, equals - plus - 1), 65536);
    if (!bytes) return Error{Code::kInvalidArgument, 0, "bad size of a body in " + text};
    body = *bytes;
  }
  return Target{text.substr(0, std::min(plus, equals)), static_cast<uint16_t>(*port),
                Request(text.substr(slash), body)};
}

Status Latency(size_t n, int gap_ms, const std::vector<Target>& targets) {
  std::vector<HttpConnection> connections;
  std::vector<Series> series;
  for (const Target& t : targets) {
    PULGA_ASSIGN_OR_RETURN(HttpConnection c, HttpConnection::Connect(t.port));
    connections.push_back(std::move(c));
    series.push_back({t.name, {}});
    for (int i = 0; i < 20; ++i) PULGA_RETURN_IF_ERROR(connections.back().Exchange(t.request));
  }
  for (size_t round = 0; round < n; ++round) {
    for (size_t i = 0; i < targets.size(); ++i) {
      if (gap_ms > 0) usleep(static_cast<useconds_t>(gap_ms) * 1000);
      const double begin = NowMicros();
      PULGA_RETURN_IF_ERROR(connections[i].Exchange(targets[i].request));
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

using Connections = std::vector<std::unique_ptr<HttpConnection>>;

Result<Connections> OpenAll(const Target& target, size_t count, int epoll) {
  Connections open;
  for (size_t i = 0; i < count; ++i) {
    PULGA_ASSIGN_OR_RETURN(HttpConnection c, HttpConnection::Connect(target.port));
    open.push_back(std::make_unique<HttpConnection>(std::move(c)));
    PULGA_RETURN_IF_ERROR(SetNonBlocking(open.back()->fd()));
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.ptr = open.back().get();
    epoll_ctl(epoll, EPOLL_CTL_ADD, open.back()->fd(), &event);
  }
  return open;
}

// Takes what arrived within 100 ms; `complete` for each reply that is whole.
template <typename Complete>
Status TakeReplies(const Target& target, int epoll, Complete complete) {
  epoll_event events[64];
  const int n = epoll_wait(epoll, events, 64, 100);
  for (int i = 0; i < n; ++i) {
    auto* connection = static_cast<HttpConnection*>(events[i].data.ptr);
    PULGA_ASSIGN_OR_RETURN(const bool whole, connection->ReadSome());
    if (!whole) continue;
    if (connection->status() != 200) {
      return Error{Code::kIo, 0, target.name + " answered " + std::to_string(connection->status())};
    }
    PULGA_RETURN_IF_ERROR(complete(*connection));
  }
  return OkStatus();
}

// Requests per second of `connections` busy connections for half a second.
Result<double> OneTurn(const Target& target, size_t connections) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  PULGA_ASSIGN_OR_RETURN(const Connections open, OpenAll(target, connections, epoll.get()));
  for (const auto& connection : open) PULGA_RETURN_IF_ERROR(connection->Send(target.request));
  const double begin = NowMicros();
  const double end = begin + 500000;
  uint64_t done = 0;
  while (NowMicros() < end) {
    PULGA_RETURN_IF_ERROR(TakeReplies(target, epoll.get(), [&](HttpConnection& connection) {
      ++done;
      return connection.Send(target.request);
    }));
  }
  return static_cast<double>(done) * 1e6 / (NowMicros() - begin);
}

// From the first request's first byte to the last reply's last one, in microseconds.
Result<double> OneBurst(const Target& target, size_t connections) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  PULGA_ASSIGN_OR_RETURN(const Connections open, OpenAll(target, connections, epoll.get()));
  const double begin = NowMicros();
  for (const auto& connection : open) PULGA_RETURN_IF_ERROR(connection->Send(target.request));
  for (size_t done = 0; done < connections;) {
    PULGA_RETURN_IF_ERROR(TakeReplies(target, epoll.get(), [&](HttpConnection&) {
      ++done;
      return OkStatus();
    }));
    if (NowMicros() - begin > 60e6) {
      return Error{Code::kTimeout, 0, target.name + ": replies are missing after a minute"};
    }
  }
  return NowMicros() - begin;
}

Status Burst(size_t connections, size_t rounds, const std::vector<Target>& targets) {
  std::vector<Series> whole;
  for (const Target& t : targets) whole.push_back({t.name, {}});
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < targets.size(); ++i) {
      PULGA_ASSIGN_OR_RETURN(const double us, OneBurst(targets[i], connections));
      whole[i].microseconds.push_back(us);
      usleep(300 * 1000);  // for what they left to be cleared away
    }
  }
  PrintJson("burst of " + std::to_string(connections), whole);
  return OkStatus();
}

Status Throughput(size_t connections, size_t rounds, const std::vector<Target>& targets) {
  std::vector<Series> per_request;  // microseconds per request, so that the statistics fit
  for (const Target& t : targets) per_request.push_back({t.name, {}});
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < targets.size(); ++i) {
      PULGA_ASSIGN_OR_RETURN(const double rps, OneTurn(targets[i], connections));
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
  if (strcmp(argv[1], "burst") == 0) return Burst(first, static_cast<size_t>(second), targets);
  return Error{Code::kInvalidArgument, 0, std::string("no such measurement: ") + argv[1]};
}

}  // namespace
}  // namespace pulga::bench

int main(int argc, char** argv) {
  return pulga::bench::ExitStatus("pulga-http-load", pulga::bench::Main(argc, argv));
}
