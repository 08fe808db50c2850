#!/usr/bin/env python3
"""Measures a warm frames function beside others, and puts the table into bench/figures.md.

    bench/frames_bench.py [--build build/release] [--rounds 5] [--write] [--busy]

Needs root, a release build, nginx-light and wrk (scripts/setup bench). method.md says what it is.
"""
import collections
import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from common import (Daemon, NGINX, Row, bench_options, end_contenders, free_port, require_quiet,
                    table, write_table)
from run import run_wrk


@contextlib.contextmanager
def contenders(build):
    """The same small answer from one function's own server, through us by frames and by http, and
    through nginx with the server on a unix socket; with the client all on one core."""
    direct, nginx_port = free_port(), free_port()
    directory = tempfile.mkdtemp(prefix="pulga-nginx-")
    os.chmod(directory, 0o755)
    daemon = Daemon(build)
    daemon.pin(0)
    os.sched_setaffinity(0, {0})
    server = build / "bin" / "rootfs" / "http-hello"
    pathlib.Path(directory, "nginx.conf").write_text(
        NGINX.replace("127.0.0.1:{upstream}", "unix:{upstream}").format(
            dir=directory, upstream=f"{directory}/upstream", port=nginx_port))
    started = []
    try:
        for place in ({"PORT": str(direct)}, {"LISTEN_UNIX": f"{directory}/upstream"}):
            started.append(subprocess.Popen([server], env=place))
        time.sleep(1)
        os.chmod(f"{directory}/upstream", 0o666)
        started.append(subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-p", directory],
                                        stderr=subprocess.DEVNULL))
        for name, image in (("framed", "frames-hello"), ("web", "http-hello")):
            daemon.cli("deploy", name, "--image", str(build / "images" / f"{image}.tar"), "--mode",
                       image.split("-")[0], "--cpu", "2", "--max", "1", "--concurrency", "256",
                       "--min", "1")
            daemon.get(f"/function/{name}/")
        time.sleep(1)
        yield {"direct": f"{direct}/", "pulga, frames": f"{daemon.port}/function/framed/",
               "pulga, http": f"{daemon.port}/function/web/",
               "nginx, unix upstream": f"{nginx_port}/"}
    finally:
        end_contenders(started, daemon, directory)


def frames_figures(build, rounds):
    rows = []
    with contenders(build) as targets:
        for connections in (1, 32):
            taken = collections.defaultdict(list)
            for _ in range(rounds):
                for name, target in targets.items():
                    taken[name].append(run_wrk(connections, target))
            half = {name: statistics.median(t[0] for t in runs) for name, runs in taken.items()}
            rate = {name: statistics.median(t[1] for t in runs) for name, runs in taken.items()}
            where = f"wrk, {connections} connection{'s' if connections > 1 else ''}"
            rows += [Row(f"{where}: {name}", f"{rate[name]:.0f} requests/s, p50 "
                         f"{half[name]:.0f} us (median of {rounds})", "") for name in targets]
            ours = rate["pulga, frames"]
            for other, wanted in (("direct", ">= 60 %"), ("nginx, unix upstream", ">= 110 %"),
                                  ("pulga, http", "")):
                rows.append(Row(f"{where}: frames, share of {other}",
                                f"{100 * ours / rate[other]:.0f} %", wanted))
    return rows


def main():
    parser = bench_options(__doc__)
    parser.add_argument("--rounds", default=5, type=int)
    options = parser.parse_args()
    require_quiet(options.busy)
    found = table(frames_figures(options.build.resolve(), options.rounds))
    print(found, flush=True)
    if options.write:
        write_table("frames", found)


if __name__ == "__main__":
    main()
