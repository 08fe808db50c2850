#!/usr/bin/env python3
"""Plays a trace of calls live, with functions that work as long as it says, and puts the table into
bench/figures.md.

    bench/replay_bench.py TRACE METADATA [--build build/release] [--speed 1] [--share 0.4]
                          [--memory-budget SIZE] [--write] [--busy]

TRACE has lines `func_name,invoke_time_ms`, METADATA `func_name,cold_dur_ms,warm_dur_ms,mem_mb,...`.
Needs root and a release build. Durations are scaled so that all calls together want the share of
the machine's processors, and none is shorter than a millisecond. method.md says the rest.
"""
import asyncio
import collections
import csv
import json
import os
import pathlib
import statistics
import sys
import time
import urllib.request

from common import Daemon, Row, bench_options, require_quiet, smaps_kib, table, write_table

Call = collections.namedtuple("Call", "seconds function")
Done = collections.namedtuple("Done", "function status start added")
LEAST_MEMORY_MB = 16


def read_trace(path, speed):
    with open(path, newline="", encoding="utf-8") as file:
        calls = [Call(float(row["invoke_time_ms"]) / 1e3 / speed, row["func_name"])
                 for row in csv.DictReader(file)]
    return sorted(calls)


def read_functions(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["func_name"]: (float(row["warm_dur_ms"]), int(float(row["mem_mb"])))
                for row in csv.DictReader(file)}


def scaled(calls, functions, processors):
    """Whole milliseconds for each function, so that all calls want at most so many processors."""
    count = collections.Counter(call.function for call in calls)
    room = processors * calls[-1].seconds * 1e3

    def by(factor):
        return {name: max(1, round(functions[name][0] * factor)) for name in count}

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        wanted = sum(count[name] * each for name, each in by(middle).items())
        low, high = (middle, high) if wanted <= room else (low, middle)
    return by(low), low


class Player:
    """Calls at their times, whether or not the earlier ones have been answered."""

    def __init__(self, port, durations):
        self.port, self.durations, self.done = port, durations, []

    async def call(self, function):
        milliseconds = self.durations[function]
        request = (f"GET /function/{function}/cpu/{milliseconds} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                   "Connection: close\r\n\r\n").encode()
        begun = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(request)
            reply = await reader.read(-1)
            writer.close()
        except OSError as error:
            reply = str(error).encode()
        took = time.perf_counter() - begun
        head = reply.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        status = int(head[0].split()[1]) if head[0].startswith("HTTP/") else 0
        self.done.append(Done(function, status, fields.get("X-Pulga-Start", "none"),
                              took - milliseconds / 1e3))

    async def play(self, calls):
        begun, tasks = time.perf_counter(), []
        for call in calls:
            wait = call.seconds - (time.perf_counter() - begun)
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self.call(call.function)))
        await asyncio.gather(*tasks)


async def watch(daemon, peak, every=2.0):
    """The most that all of our processes held, and that was taken of the budget."""
    while True:
        peak["pss"] = max(peak["pss"], sum(smaps_kib(pid, "Pss") for pid in daemon.processes()))
        key = pathlib.Path(daemon.data, "admin.key").read_text().strip()
        request = urllib.request.Request(daemon.url + "/v1/system",
                                         headers={"Authorization": f"Bearer {key}"})
        system = json.loads(await asyncio.to_thread(
            lambda: urllib.request.urlopen(request, timeout=10).read()))
        for name in ("memory_used_bytes", "instances"):
            peak[name] = max(peak[name], system[name])
        await asyncio.sleep(every)


def deploy(daemon, build, functions, names):
    daemon.cli("image", "import", str(build / "images" / "http-hello.tar"))
    for name in sorted(names):
        memory = max(LEAST_MEMORY_MB, functions[name][1])
        daemon.cli("deploy", name, "--image", "http-hello:1", "--mode", "http", "--cpu", "1",
                   "--concurrency", "1", "--max", "32", "--memory", f"{memory}Mi")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def rows_of(done, peak, factor):
    good = [call for call in done if call.status == 200]
    starts = collections.Counter(call.start for call in good)
    refused = collections.Counter(call.status for call in done if call.status != 200)
    why = ", ".join(f"{status or 'nothing'} {count}" for status, count in refused.most_common())
    rows = [Row(f"{len(done)} calls of {len({call.function for call in done})} functions, "
                f"durations scaled by {factor:.3f}",
                f"{len(good)} answered, {len(done) - len(good)} not{why and f' ({why})'}; added "
                f"latency p50 {statistics.median(call.added for call in good) * 1e3:.1f} ms, p99 "
                f"{percentile([call.added for call in good], 0.99) * 1e3:.1f} ms", "")]
    for start, count in starts.most_common():
        added = [call.added for call in good if call.start == start]
        rows.append(Row(f"  of them {start}", f"{100 * count / len(good):.2f} % ({count}); added "
                        f"latency p50 {statistics.median(added) * 1e3:.1f} ms, p99 "
                        f"{percentile(added, 0.99) * 1e3:.1f} ms", ""))
    rows.append(Row("peak memory", f"{peak['pss'] / 1024:.0f} MiB (PSS of all our processes, "
                    f"without the kernel's), {peak['memory_used_bytes'] >> 20} MiB of the budget, "
                    f"{peak['instances']} instances", ""))
    return rows


async def measured(daemon, calls, durations):
    peak = collections.Counter()
    watcher = asyncio.create_task(watch(daemon, peak))
    player = Player(daemon.port, durations)
    await player.play(calls)
    watcher.cancel()
    return player.done, peak


def main():
    parser = bench_options(__doc__)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("metadata", type=pathlib.Path)
    parser.add_argument("--speed", default=1.0, type=float, help="so many times as fast")
    parser.add_argument("--share", default=0.4, type=float, help="of the processors, for calls")
    parser.add_argument("--memory-budget", default="")
    options = parser.parse_args()
    require_quiet(options.busy)
    calls, functions = read_trace(options.trace, options.speed), read_functions(options.metadata)
    if not calls or {call.function for call in calls} - set(functions):
        sys.exit("replay: the metadata does not know all functions of the trace")
    durations, factor = scaled(calls, functions, options.share * os.cpu_count())
    build = options.build.resolve()
    flags = ("--memory-budget", options.memory_budget) if options.memory_budget else ()
    daemon = Daemon(build, *flags)
    try:
        deploy(daemon, build, functions, durations)
        done, peak = asyncio.run(measured(daemon, calls, durations))
    finally:
        daemon.stop()
    found = table(rows_of(done, peak, factor))
    print(f"replay\n{found}", flush=True)
    if options.write:
        write_table("replay", found)


if __name__ == "__main__":
    main()
