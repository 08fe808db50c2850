"""What a daemon holds, counted from outside; two snapshots tell what leaked."""

import os
import re
import time
from collections import Counter
from pathlib import Path

from harness import command_line, descendants, parent_of, status_of, wait_until

NAMESPACE = re.compile(r"^(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]$")
# What has to be as before, and not only about so much.
EXACT = ("processes", "zombies", "threads", "cgroups", "mounts", "launcher_mounts", "namespaces",
         "fds", "sockets", "temp_files", "data_files")
# A connection to an instance that has ended may be given up a while after it.
MAY_SHRINK = ("fds", "sockets")
DATABASE_SLACK_KIB = 5 << 10  # SQLite's log before it is written back: 1,000 pages, and some


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
            # Not rglob: it fails when a directory goes while it looks.
            found |= {at for at, _, _ in os.walk(os.path.normpath(mount + place) + "/" + name)}
    return sorted(found)


def links_in(folder):
    """{name: target} of the links below /proc/PID that can be read right now."""
    found = {}
    try:
        for name in os.listdir(folder):
            try:
                found[name] = os.readlink(f"{folder}/{name}")
            except OSError:
                pass
    except OSError:
        pass
    return found


def namespaces_of(pids):
    """{kind: how many} of every kind of namespace that is not ours: those that the processes live
    in or will put children in, and those kept alive by a descriptor or a bind mount alone."""
    found = set()
    for pid in pids:
        found |= set(links_in(f"/proc/{pid}/ns").values())
        found |= {link for link in links_in(f"/proc/{pid}/fd").values() if NAMESPACE.match(link)}
        found |= {line.split()[3] for line in mounts_of(pid) if " - nsfs " in line}
    return Counter(name.split(":")[0] for name in found - set(links_in("/proc/self/ns").values()))


def open_fds(pid):
    return sorted(link.split(":")[0] for link in links_in(f"/proc/{pid}/fd").values())


def sockets_of(pid):
    """{table: how many} of the sockets it holds, by the tables of its network namespace."""
    held = {link[8:-1] for link in links_in(f"/proc/{pid}/fd").values()
            if link.startswith("socket:[")}
    found = Counter({"all": len(held)})
    for table, column in (("tcp", 9), ("tcp6", 9), ("udp", 9), ("unix", 6), ("netlink", 9)):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        found[table] = sum(1 for line in lines
                           if len(line.split()) > column and line.split()[column] in held)
    return found


def memory_kib(pid):
    return int(status_of(pid).get("VmRSS", "0 kB").split()[0])


def private_kib(pid):
    """Its proportional share of memory that is no file's. (That of files depends on who else runs
    our programs.)"""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def files_below(folder):
    """{path: bytes on the disk} of every file; directories have a "/" behind, and no size."""
    found = {}
    for at, folders, names in os.walk(folder):
        found.update({f"{Path(at, name).relative_to(folder)}/": 0 for name in folders})
        for name in names:
            path = Path(at, name)
            try:
                found[str(path.relative_to(folder))] = path.lstat().st_blocks * 512
            except OSError:
                pass
    return found


def is_database(name):
    """It grows and shrinks as SQLite sees fit: its log is kept until the next checkpoint."""
    return name.startswith("pulga.db")


def is_log(name):
    """A ring for each function, of a size of its own (test_logs), that fills with what it says."""
    return name.startswith("logs/")


def mounts_of(pid="self"):
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []


def not_of_other_daemons(mounts, daemon):
    """Small disks that tests running beside this one have mounted for theirs come and go."""
    others, ours = f"{Path(daemon.temp).parent}/pulga-e2e-", str(daemon.temp)
    return [line for line in mounts if not line.split()[4].startswith(others)
            or line.split()[4].startswith(ours)]


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
        named = named_pids(daemon)
        self.processes = Counter(status_of(p).get("Name", "gone") for p in pids)
        self.zombies = zombies_below(named.values())
        self.threads = {name: status_of(pid).get("Threads") for name, pid in named.items()}
        self.cgroups = cgroups_of(daemon.data)
        self.mounts = len(not_of_other_daemons(mounts_of(), daemon))
        self.launcher_mounts = len(not_of_other_daemons(mounts_of(named["launcher"]), daemon))
        self.namespaces = namespaces_of(pids)
        self.fds = {name: Counter(open_fds(pid)) for name, pid in named.items()}
        self.sockets = {name: sockets_of(pid) for name, pid in named.items()}
        self.rss_kib = {name: memory_kib(pid) for name, pid in named.items()}
        self.private_kib = {name: private_kib(pid) for name, pid in named.items()}
        self.temp_files = sorted(f for f in os.listdir("/tmp") if f.startswith("pulga-run"))
        files = files_below(daemon.data)
        self.data_files = {name: size for name, size in files.items()
                           if not is_database(name) and not is_log(name)}
        self.database_kib = sum(size for name, size in files.items() if is_database(name)) >> 10

    def differences(self, later, memory_growth=0.05, slack_kib=1024):
        """Lines about what `later` holds more of; empty when nothing leaked."""
        found = []
        for field in EXACT:
            was, now = getattr(self, field), getattr(later, field)
            if field in MAY_SHRINK:  # Counters: their difference is what there is more of
                same = not any(held - was.get(name, Counter()) for name, held in now.items())
            else:
                same = was == now
            if not same:
                found.append(f"{field}: {describe(was, now)}")
        for field in ("rss_kib", "private_kib"):
            for name, was in getattr(self, field).items():
                now = getattr(later, field).get(name, 0)
                if now > was * (1 + memory_growth) + slack_kib:
                    found.append(f"{field} of {name}: {was}, then {now}")
        if later.database_kib > self.database_kib + DATABASE_SLACK_KIB:
            found.append(f"database_kib: {self.database_kib}, then {later.database_kib}")
        return found

    def figures(self):
        """What was counted, in one line."""
        fields = {"processes": sum(self.processes.values()), "zombies": len(self.zombies),
                  "cgroups": len(self.cgroups), "mounts": self.mounts,
                  "namespaces": dict(self.namespaces),
                  "fds": {name: sum(fds.values()) for name, fds in self.fds.items()},
                  "sockets": {name: held["all"] for name, held in self.sockets.items()},
                  "files": len(self.data_files), "file_kib": sum(self.data_files.values()) >> 10,
                  "database_kib": self.database_kib, "rss_kib": self.rss_kib,
                  "private_kib": self.private_kib}
        return ", ".join(f"{name} {value}" for name, value in fields.items())


def named_pids(daemon):
    return {"keeper": daemon.process.pid, "daemon": daemon.daemon_pid(),
            "launcher": daemon.launcher_pid()}


def zombies_below(pids):
    """Dead children that nobody has reaped."""
    return sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and parent_of(p) in set(pids)
                  and status_of(p).get("State", "").startswith("Z"))


def describe(was, now):
    if isinstance(was, dict) and not isinstance(was, Counter):
        was, now = (sorted(f"{k}={v}" for k, v in d.items()) for d in (was, now))
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
        same, last = not last.differences(now) and not now.differences(last), now
        return same

    wait_until(settled, seconds, "the daemon is quiet")
    return last


def later_differences(before, daemon, seconds=90, slack_kib=1024):
    """What is not as before even after a while: what is on its way out may take its time. Returns
    the lines and the last snapshot."""
    deadline = time.monotonic() + seconds
    while True:
        now = Snapshot(daemon)
        lines = before.differences(now, slack_kib=slack_kib)
        if not lines or time.monotonic() > deadline:
            return "\n".join(lines), now
        time.sleep(0.5)


def nothing_left(daemon):
    """After the daemon ended: lines about what it left behind."""
    left = [f"process {p}: {command_line(p)}" for p in our_processes(daemon)
            if status_of(p) and p != daemon.process.pid]
    left += ["cgroup " + c for c in cgroups_of(daemon.data)]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(daemon.temp) in line:
            left.append("mount " + line)
    return left
