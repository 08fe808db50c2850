#!/usr/bin/env python3
"""Measures many functions at once, and puts the tables into bench/figures.md.

    bench/many_bench.py [--build build/release] [--count 1000] [--write] [--busy]
                        [--only functions,guest,idle]

Needs root and a release build; `guest` also qemu (scripts/setup test): it runs `functions` in a
virtual machine with 512 MiB and pure cgroup v2, which takes minutes where the processor is
emulated, and is left out unless it is named. method.md says what each figure is. A run in which a
call fails, or the kernel kills anything for memory, ends with status 1 and writes nothing.
"""
import http.client
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

from common import (Daemon, ROOT, Row, kernel_and_user_kib, rows_of, run_sections, section_options,
                    smaps_kib)

GUEST_MB = 512


class Client:
    """One keep-alive connection to a daemon, with the administrator's key."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
        key = pathlib.Path(daemon.data, "admin.key").read_text().strip()
        self.headers = {"Authorization": f"Bearer {key}"}

    def request(self, method, path, document=None):
        """The reply's headers and body, and how long it took; anything but success ends it all."""
        begun = time.perf_counter()
        self.connection.request(method, path, json.dumps(document) if document else None,
                                self.headers)
        reply = self.connection.getresponse()
        body = reply.read()
        if reply.status not in (200, 201):
            sys.exit(f"{method} {path} was answered {reply.status}: {body[:300]}")
        return reply.headers, body, time.perf_counter() - begun


def milliseconds(seconds):
    """p50 and p99 of a list of seconds."""
    ordered = sorted(seconds)
    most = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"p50 {statistics.median(ordered) * 1e3:.1f} ms, p99 {most * 1e3:.1f} ms"


def oom_kills():
    found = re.search(r"^oom_kill (\d+)", pathlib.Path("/proc/vmstat").read_text(), re.M)
    return int(found[1]) if found else 0


def pss_of_ours(daemon):
    """PSS in KiB of the keeper, the daemon and the launcher, in the order they were started."""
    pids = [daemon.process.pid]
    for task in pathlib.Path(f"/proc/{daemon.process.pid}/task").iterdir():
        pids += [int(pid) for pid in (task / "children").read_text().split()]
    found = {}
    for pid in pids:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        name = "daemon" if "serve-daemon" in words else \
            "launcher" if "launcher" in words else "keeper"
        found[name] = smaps_kib(pid, "Pss")
    return found


def import_images(daemon, build):
    for name in ("hello", "http-hello"):
        daemon.cli("image", "import", str(build / "images" / f"{name}.tar"))


def tell_progress(what, count):
    """An emulated guest takes a quarter of an hour; one that is stuck should be seen to be."""
    if count % 100 == 0:
        print(f"{count} {what}", file=sys.stderr, flush=True)


def deploy_and_call(client, count):
    """Every second function a program, every second a server. Seconds of each deploy and call, and
    how many calls found what."""
    deploys, calls, starts = [], [], {}
    for number in range(count):
        kind = {"image": "hello:1", "mode": "exec"} if number % 2 == 0 else \
            {"image": "http-hello:1", "mode": "http"}
        deploys.append(client.request("PUT", f"/v1/functions/many{number}", kind)[2])
        tell_progress("deployed", number + 1)
    for number in range(count):
        headers, _, took = client.request("GET", f"/function/many{number}")
        calls.append(took)
        start = headers["X-Pulga-Start"]
        starts[start] = starts.get(start, 0) + 1
        tell_progress("called", number + 1)
    return deploys, calls, starts


def functions_figures(build, count, busy):
    """So many functions deployed, each called once, one after the other."""
    killed = oom_kills()
    daemon = Daemon(build)
    try:
        idle = pss_of_ours(daemon)
        import_images(daemon, build)
        client = Client(daemon)
        deploys, calls, starts = deploy_and_call(client, count)
        ours = pss_of_ours(daemon)
        system = json.loads(client.request("GET", "/v1/system")[1])
        instances, used = system["instances"], system["memory_used_bytes"]
        listed = client.request("GET", "/v1/functions")[2]
    finally:
        daemon.stop()
    killed = oom_kills() - killed
    if killed and not busy:  # else it may have been others' work
        sys.exit(f"functions: the kernel killed {killed} processes for memory")
    total = sum(ours.values())
    return [
        Row(f"{count} functions deployed, each called once", "all answered; "
            + ", ".join(f"{number} {start}" for start, number in sorted(starts.items()))
            + f"; {instances} instances live at the end, {used >> 20} MiB of the budget; "
            f"the kernel killed {killed} processes for memory", "works, no OOM"),
        Row("the daemon then, PSS", f"{ours['daemon'] / 1024:.1f} MiB (idle and empty "
            f"{idle['daemon'] / 1024:.1f}); with keeper and launcher {total / 1024:.1f} MiB",
            "<= 12 MB"),
        Row("a first call", milliseconds(calls), "reported"),
        Row("a deploy", milliseconds(deploys), ""),
        Row("the list of all of them", f"{listed * 1e3:.0f} ms", "")]


def steps_of(client, names):
    """How many instances are on each step."""
    found = {}
    for function in json.loads(client.request("GET", "/v1/functions")[1])["functions"]:
        for instance in function["instances"] if function["name"] in names else ():
            found[instance["step"]] = found.get(instance["step"], 0) + 1
    return found


def idle_figure(build, step, count, functions=20):
    """What so many instances on that step take, all of ours and the kernel's memory included: the
    same functions before, with one instance each, are taken off."""
    each = count // functions
    names = [f"idle{number}" for number in range(functions)]
    daemon = Daemon(build, "--max-instances", str(count + functions), "--pressure", "off")
    try:
        import_images(daemon, build)
        client = Client(daemon)

        def grow(instances):
            for name in names:
                spec = {"image": "hello:1", "mode": "exec"} if step == "parked" else \
                    {"image": "http-hello:1", "mode": "http"}
                spec["limits"] = {"memory": "8Mi", "pids": 16}
                spec["scale"] = {"max": instances, "parked": instances, "idle": "1h"} \
                    if step == "parked" else \
                    {"min": instances, "max": instances, "freeze_after": "0", "idle": "1h"}
                client.request("PUT", f"/v1/functions/{name}", spec)
                client.request("GET", f"/function/{name}")  # nothing is parked before a call
            deadline = time.monotonic() + 120
            while steps_of(client, names) != {step: instances * functions}:
                if time.monotonic() > deadline:
                    sys.exit(f"idle: not {instances * functions} {step} instances, but "
                             f"{steps_of(client, names)}")
                time.sleep(0.5)
            time.sleep(3)
            return kernel_and_user_kib(daemon)

        before, after = grow(1), grow(each)
    finally:
        daemon.stop()
    more = (each - 1) * functions
    kernel, user = ((after[part] - before[part]) / more for part in (0, 1))
    return Row(f"{each * functions} {step} static instances of {functions} functions, each",
               f"{kernel + user:.0f} KiB ({kernel:.0f} kernel + {user:.0f} user)", "<= 350 KB")


def idle_figures(build, count):
    return [idle_figure(build, step, count) for step in ("parked", "frozen")]


def guest_figures(build, count):
    """`functions` in a small virtual machine: the rows of its table, as printed there."""
    command = [ROOT / "scripts" / "vm-test", "--memory", str(GUEST_MB), "--seconds", "3000", "--",
               pathlib.Path(__file__).resolve(), "--build", build, "--only", "functions",
               "--count", str(count)]
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as guest:
        for line in guest.stdout:
            said += line
            print(f"guest: {line}", end="", file=sys.stderr, flush=True)
    if guest.returncode != 0:
        sys.exit(f"guest: status {guest.returncode}")
    return rows_of(said)


def main():
    sections = {
        "functions": lambda o: functions_figures(o.build, o.count, o.busy),
        "guest": lambda o: guest_figures(o.build, o.count),
        "idle": lambda o: idle_figures(o.build, o.count)}
    parser = section_options(__doc__, ("functions", "idle"))
    parser.add_argument("--count", default=1000, type=int)
    run_sections(parser, sections, prefix="many-")


if __name__ == "__main__":
    main()
