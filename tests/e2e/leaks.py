"""What a daemon holds, counted from outside; two snapshots tell what leaked."""

import os
import time
from collections import Counter
from pathlib import Path

from harness import command_line, descendants, status_of, wait_until


def cgroup_tree_name(data_dir):
    """The name of the daemon's cgroup directories: FNV-1a of the data directory's path."""
    value = 0xcbf29ce484222325
    for byte in str(data_dir).encode():
        value = (value ^ byte) * 0x100000001b3 % (1 << 64)
    return f"pulga-{value:016x}"


def cgroup_mounts():
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            mounts.append(left.split()[4])
    return mounts


def has_group_oom():
    """Whether memory is a v2 controller here: it then kills whole cgroups."""
    return not any(m.endswith("/memory") for m in cgroup_mounts())


def cgroups_of(data_dir):
    """Every cgroup directory of this daemon, on every hierarchy."""
    name, found = cgroup_tree_name(data_dir), set()
    own = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for mount in cgroup_mounts():
        for place in own | {"/"}:  # the tree is made below our own cgroup, or at the top
            tree = Path(mount + place) / name
            found |= {str(p) for p in [tree, *tree.rglob("*")] if p.is_dir()}
    return sorted(found)


def namespaces_of(pids, kind):
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            pass
    return found


def open_fds(pid):
    try:
        return sorted(os.readlink(f"/proc/{pid}/fd/{n}").split(":")[0]
                      for n in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return []


def memory_kib(pid):
    return int(status_of(pid).get("VmRSS", "0 kB").split()[0])


def files_below(folder):
    return sorted(str(Path(at).relative_to(folder) / name)
                  for at, _, names in os.walk(folder) for name in names)


def mount_count(pid="self"):
    return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


def our_processes(daemon):
    """Below the keeper, and whoever names our data directory but lost its parent."""
    found = set(descendants(daemon.process.pid))
    for pid in (int(p) for p in os.listdir("/proc") if p.isdigit()):
        if str(daemon.data) in command_line(pid) and pid != os.getpid():
            found.add(pid)
    return found


class Snapshot:
    """Counts of a quiet daemon."""

    def __init__(self, daemon):
        pids = our_processes(daemon)
        self.processes = Counter(status_of(p).get("Name", "gone") for p in pids)
        self.cgroups = cgroups_of(daemon.data)
        self.mounts = mount_count()
        self.launcher_mounts = mount_count(daemon.launcher_pid())
        self.netns = len(namespaces_of(pids, "net"))
        self.fds = {name: Counter(open_fds(pid)) for name, pid in named_pids(daemon).items()}
        self.memory_kib = {name: memory_kib(pid) for name, pid in named_pids(daemon).items()}
        self.temp_files = [f for f in os.listdir("/tmp") if f.startswith("pulga-run")]
        self.data_files = [f for f in files_below(daemon.data) if not f.startswith("pulga.db")]

    def differences(self, later, memory_growth=0.05, slack_kib=1024):
        """Lines about what `later` holds more of; empty when nothing leaked."""
        found = []
        for field in ("processes", "cgroups", "mounts", "launcher_mounts", "netns", "fds",
                      "temp_files", "data_files"):
            was, now = getattr(self, field), getattr(later, field)
            if was != now:
                found.append(f"{field}: {describe(was, now)}")
        for name, was in self.memory_kib.items():
            now = later.memory_kib.get(name, 0)
            if now > was * (1 + memory_growth) + slack_kib:
                found.append(f"memory of {name}: {was} KiB, then {now} KiB")
        return found


def named_pids(daemon):
    return {"keeper": daemon.process.pid, "daemon": daemon.daemon_pid(),
            "launcher": daemon.launcher_pid()}


def describe(was, now):
    if isinstance(was, list):
        return f"new {sorted(set(now) - set(was))}, gone {sorted(set(was) - set(now))}"
    return f"{was} then {now}"


def quiet_snapshot(daemon, seconds=15):
    """A snapshot once two in a row, half a second apart, are alike (parked refills are done)."""
    last = Snapshot(daemon)

    def settled():
        nonlocal last
        time.sleep(0.5)
        now = Snapshot(daemon)
        same, last = not last.differences(now), now
        return same

    wait_until(settled, seconds, "the daemon is quiet")
    return last


def nothing_left(daemon):
    """After the daemon ended: lines about what it left behind."""
    left = [f"process {p}: {command_line(p)}" for p in our_processes(daemon)
            if status_of(p) and p != daemon.process.pid]
    left += ["cgroup " + c for c in cgroups_of(daemon.data)]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(daemon.temp) in line:
            left.append("mount " + line)
    return left
