#!/usr/bin/env python3
"""Measures what happens around the readiness ladder, and puts the tables into bench/figures.md.

    bench/ladder_bench.py [--build build/release] [--write] [--busy]
                          [--only burst,churn,abuse,thaw,load,bodies]

Needs root, a release build and nginx-light (scripts/setup bench). method.md says what each is.
"""
import contextlib
import http.client
import json
import pathlib
import socket
import statistics
import threading
import time

from common import Daemon, Row, http_contenders, run_json, run_sections, section_options, times

BODY = 10 << 20


def deploy(daemon, build, name, image, *flags):
    """By an image's reference, or from the archive of that name when it is not there yet."""
    reference = f"{image}:1"
    known = reference in daemon.cli("image", "ls")
    daemon.cli("deploy", name, "--image",
               reference if known else str(build / "images" / f"{image}.tar"), *flags)


@contextlib.contextmanager
def serving(build):
    daemon = Daemon(build)
    try:
        yield daemon
    finally:
        daemon.stop()


def load(build, *arguments):
    return run_json([build / "bin" / "pulga-http-load", *map(str, arguments)])


def burst_figures(build, calls=200, rounds=10):
    """Simultaneous calls of one function that has no instance."""
    with serving(build) as daemon:
        deploy(daemon, build, "burst", "hello", "--mode", "exec", "--max", str(calls), "--parked",
               "0", "--memory", "16Mi", "--queue", str(calls))
        daemon.get("/function/burst")
        found, = load(build, "burst", calls, rounds, f"burst={daemon.port}/function/burst")
    return [Row(f"burst of {calls} simultaneous cold calls, max {calls}, none lost",
                f"{calls * 1e6 / found['p50_us']:.0f} starts/s; all answered after p50 "
                f"{found['p50_us'] / 1e3:.0f} ms, p90 {found['p90_us'] / 1e3:.0f} ms (n={rounds})",
                ">= 1000 starts/s")]


class Churn:
    """Versions of other functions, built and dropped by one client, so many each second."""

    def __init__(self, daemon, build, functions=20, each_second=30):
        self.daemon, self.functions, self.gap = daemon, functions, 1 / each_second
        self.key = pathlib.Path(daemon.data, "admin.key").read_text().strip()
        self.built = 0
        deploy(daemon, build, "other0", "hello", "--mode", "exec")

    def __enter__(self):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        client = http.client.HTTPConnection("127.0.0.1", self.daemon.port)
        while not self.over.wait(self.gap):
            spec = {"image": "hello:1", "mode": "exec", "env": {"BUILD": str(self.built)}}
            client.request("PUT", f"/v1/functions/other{self.built % self.functions}",
                           json.dumps(spec), {"Authorization": f"Bearer {self.key}"})
            reply = client.getresponse()
            if reply.status not in (200, 201):
                raise SystemExit(f"a deploy was answered {reply.status}: {reply.read()}")
            reply.read()
            self.built += 1


def churn_figures(build, calls=1000, rounds=3):
    """Cold starts of one function, quiet and while versions of others come and go."""
    with serving(build) as daemon:
        deploy(daemon, build, "steady", "hello", "--mode", "exec", "--parked", "0")
        target = f"steady={daemon.port}/function/steady"
        churn = Churn(daemon, build)
        runs = {"quiet": [], "beside builds": []}
        for _ in range(rounds):
            runs["quiet"] += load(build, "latency", calls, 5, target)
            with churn:
                runs["beside builds"] += load(build, "latency", calls, 5, target)
    half, most = ({name: statistics.median(r[key] for r in found) for name, found in runs.items()}
                  for key in ("p50_us", "p99_us"))
    return [Row(f"cold start over HTTP while {churn.built} versions of others are built and "
                f"dropped, p99 beside quiet",
                f"{most['beside builds'] / most['quiet']:.2f} x; p50 {half['beside builds']:.0f} "
                f"us, p99 {most['beside builds']:.0f} us against p50 {half['quiet']:.0f} us, p99 "
                f"{most['quiet']:.0f} us (medians of {rounds} x {calls})", "<= 2 x")]


@contextlib.contextmanager
def misbehaving(daemon, deed):
    """The probe does this, again and again, for as long."""
    over = threading.Event()

    def run():
        while not over.is_set():
            client = http.client.HTTPConnection("127.0.0.1", daemon.port)
            client.request("POST", "/function/probe", deed)
            client.getresponse().read()
            client.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def abuse_figures(build, calls=1000, rounds=3):
    """What a fork bomb does to another function, and spinning threads to the API."""
    rows = []
    with serving(build) as daemon:
        deploy(daemon, build, "probe", "probe", "--mode", "exec", "--cpu", "300m", "--pids", "32",
               "--timeout", "5s")
        deploy(daemon, build, "steady", "http-hello", "--mode", "http", "--max", "1")
        daemon.get("/function/steady/")
        for what, deed, name, path in (
                ("fork bomb of 32 processes, another function", "forkbomb; sleep-ms 200", "S31",
                 "function/steady/"),
                ("64 spinning threads under 0.3 processors, the API", "spin 64 1", "S33",
                 "healthz")):
            runs = {"quiet": [], "beside": []}
            for _ in range(rounds):
                runs["quiet"] += load(build, "latency", calls, 1, f"x={daemon.port}/{path}")
                with misbehaving(daemon, deed):
                    runs["beside"] += load(build, "latency", calls, 1, f"x={daemon.port}/{path}")
            quiet, beside = (statistics.median(r["p99_us"] for r in runs[k]) for k in runs)
            rows.append(Row(f"{what}'s p99 beside it ({name})",
                            f"{beside / quiet:.2f} x quiet; {beside:.0f} us against {quiet:.0f} us "
                            f"(medians of {rounds} x {calls})",
                            "<= 2 x" if name == "S31" else "< 100 ms"))
    return rows


def thaw_figures(build, calls=60):
    """A request to a frozen instance beside one to a warm one, both after the same idleness."""
    with serving(build) as daemon:
        for name, freeze_after in (("warm", "10m"), ("frozen", "100ms")):
            deploy(daemon, build, name, "http-hello", "--mode", "http", "--max", "1",
                   "--freeze-after", freeze_after)
            daemon.get(f"/function/{name}/")
        warm, frozen = load(build, "latency", calls, 300, *(
            f"{name}={daemon.port}/function/{name}/" for name in ("warm", "frozen")))
    return [Row("frozen: thaw and reply, more than warm, 600 ms idle before each",
                f"{(frozen['p50_us'] - warm['p50_us']) / 1e3:.2f} ms; {times(frozen)} against "
                f"{times(warm)}", "<= 0.3 ms")]


def load_figures(build):
    """Requests per second through us and through nginx: GET and 1 KiB POST."""
    rows = []
    with http_contenders(build) as (contenders, _):
        for method, suffix, direct in (("GET", "", 38), ("1 KiB POST", "+1024", 33)):
            for connections in (1, 32, 128):
                found = {r["name"]: r["rps_p50"] for r in load(
                    build, "throughput", connections, 8,
                    *(f"{name}{suffix}={target}" for name, target in contenders.items()
                      if name != "nginx, our headers"))}
                rows.append(Row(
                    f"{method}, {connections} connection{'s' if connections > 1 else ''}",
                    f"{found['pulga'] / found['nginx']:.2f} x nginx, "
                    f"{100 * found['pulga'] / found['direct']:.0f} % of direct; "
                    f"{found['pulga']:.0f}, {found['nginx']:.0f} and {found['direct']:.0f} "
                    "requests/s", f">= {0.9 if connections == 1 else 1.0} x, >= {direct} %"))
    return rows


def processor_ns(pids):
    return sum(int((task / "schedstat").read_text().split()[0])
               for pid in pids for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


def send_and_fetch(port, path):
    """BODY bytes to the function, then as many from it; one connection each."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(f"POST {path}sink HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                  f"Content-Length: {BODY}\r\n\r\n".encode() + bytes(BODY))
        if b" 200 " not in s.recv(4096):
            raise SystemExit("a body was not taken")
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(f"GET {path}big/{BODY} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        got = 0
        while piece := s.recv(1 << 20):
            got += len(piece)
        if got < BODY:
            raise SystemExit(f"a reply ended after {got} of {BODY} bytes")


def body_figures(build, rounds=20):
    """Processor time of a proxy for large bodies both ways."""
    used = {"pulga": [], "nginx": []}
    with http_contenders(build) as (contenders, pids):
        for number in range(rounds + 2):
            for name in used:
                port, path = contenders[name].split("/", 1)
                stream = "stream/" if name == "nginx" else ""
                before = processor_ns(pids[name])
                send_and_fetch(int(port), f"/{path}{stream}")
                time.sleep(0.02)
                if number >= 2:
                    used[name].append((processor_ns(pids[name]) - before) / 1e6)
    half = {name: statistics.median(taken) for name, taken in used.items()}
    return [Row("10 MiB to and 10 MiB from an http function, processor time of the proxy",
                f"{half['pulga'] / half['nginx']:.2f} x nginx's; {half['pulga']:.1f} ms against "
                f"{half['nginx']:.1f} ms (p50, n={rounds})", "<= 1 x")]


def main():
    sections = {
        "burst": lambda o: burst_figures(o.build),
        "churn": lambda o: churn_figures(o.build),
        "abuse": lambda o: abuse_figures(o.build),
        "thaw": lambda o: thaw_figures(o.build),
        "load": lambda o: load_figures(o.build),
        "bodies": lambda o: body_figures(o.build)}
    run_sections(section_options(__doc__, sections), sections)


if __name__ == "__main__":
    main()
