#!/usr/bin/env python3
"""Measures other runtimes beside our own starts and puts the table into bench/figures.md.

    bench/peers.py [--build build/release] [--rounds 100] [--write] [--busy]

crun, runc and bwrap, and `podman run`, `ctr run` and `docker run` with daemons of their own, in
turn with ours in one loop, tight and paced. Needs root and the packages of `scripts/setup bench`.
All of it happens in mount, process and network namespaces of its own, so that what they mount or
start ends with it and the machine's firewall is not theirs; their cgroups are removed at the end.
What does not run here is left out, with its reason in the table. method.md says the rest.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from common import ROOT, Row, bench_options, require_quiet, run_json, table, times, write_table

OWNER_BASE = 0x7A000000
CGROUPS = "pulga-bench"  # the parent of all of theirs
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"  # Debian's own, whatever else is installed
HELLO = b"Hello from a flea-sized sandbox!\n"
# crun refuses a hybrid cgroup layout, so that the empty v2 hierarchy is hidden from all of them.
# The shell stays: it waits for the orphans of podman and of containerd.
PREPARE = """
umount -l /sys/fs/cgroup/unified 2>/dev/null
mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm && "$@"
exit $?
"""
LIMITS = ("--memory 64m --pids-limit 128 --cpus 1 --read-only --cap-drop ALL --tmpfs /tmp:size=16m "
          "--security-opt no-new-privileges --network none --rm")


class LeftOut(Exception):
    """Why a peer does not run here."""


def syscall_list():
    """The unconditional names of sandbox/syscalls.txt, for the peers' seccomp list."""
    names, section = [], None
    for line in (ROOT / "sandbox" / "syscalls.txt").read_text().splitlines():
        if line.startswith("["):
            section = line.split("]")[0][1:]
        elif section in ("allow", "allow: x86_64 only") and not line.startswith("#"):
            names += line.split()
    return names + ["clone", "socket", "ioctl", "personality", "mknod", "mknodat"]


def make_bundle(directory, program, cgroup):
    """An OCI bundle with the limits and the profile our functions have."""
    root = pathlib.Path(directory, "rootfs")
    for name in ("dev", "proc", "run", "tmp", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "program")
    capabilities = {s: [] for s in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    ids = [{"containerID": 0, "hostID": OWNER_BASE, "size": 65536}]
    config = {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/program"],
                    "env": ["PATH=/"], "cwd": "/", "capabilities": capabilities,
                    "noNewPrivileges": True},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "hello",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            *({"destination": path, "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "nodev", *options]}
              for path, *options in (("/tmp", "size=16m"), ("/run", "size=1m"),
                                     ("/dev/shm", "size=16m"), ("/sys", "size=1m", "ro")))],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 128},
                          "cpu": {"quota": 100000, "period": 100000, "shares": 1024}},
            "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup",
                                                 "user")],
            "uidMappings": ids, "gidMappings": ids,
            "maskedPaths": ["/proc/interrupts", "/proc/keys", "/proc/kcore"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                        "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": syscall_list(), "action": "SCMP_ACT_ALLOW"}]}}}
    pathlib.Path(directory, "config.json").write_text(json.dumps(config))


def program(name):
    found = shutil.which(name, path=SYSTEM)
    if not found:
        raise LeftOut(f"{name} is not installed (scripts/setup bench)")
    return found


def checked(command):
    out = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if out.returncode != 0:
        said = (out.stderr + out.stdout).decode(errors="replace").strip().splitlines()
        raise LeftOut(f"{pathlib.Path(str(command[0])).name}: "
                      f"{said[-1] if said else f'status {out.returncode}'}"[:200])
    return out.stdout


def bundled(name, directory, build):
    """crun or runc on a bundle."""
    directory.mkdir()
    make_bundle(directory, build / "bin" / "rootfs" / "hello", f"/{CGROUPS}/{name}")
    return f"{program(name)} --root {directory}/state run --bundle {directory} pulga-bench-{name}"


def bwrap(directory, build):
    """bubblewrap on the same root: namespaces and mounts; it has no cgroups, limits or filter."""
    directory.mkdir()
    make_bundle(directory, build / "bin" / "rootfs" / "hello", "/none")
    return (f"{program('bwrap')} --unshare-all --ro-bind {directory}/rootfs / --proc /proc "
            "--dev /dev --tmpfs /tmp --tmpfs /run --cap-drop ALL --die-with-parent /program")


@contextlib.contextmanager
def podman(directory, build):
    directory.mkdir()
    command = (f"{program('podman')} --root {directory}/root --runroot {directory}/run --tmpdir "
               f"{directory}/tmp --storage-driver overlay --cgroup-manager cgroupfs "
               "--events-backend none")
    checked([*command.split(), "load", "-q", "-i", build / "images" / "hello.tar"])
    # It may not raise the limit of open files, which it otherwise would.
    yield (f"{command} run {LIMITS} --pull never --ulimit host "
           f"--cgroup-parent /{CGROUPS}/podman docker.io/library/hello:1")


@contextlib.contextmanager
def serving(command, answers, log):
    """A daemon, from when a command succeeds until it has been told to end."""
    with open(log, "wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(answers, capture_output=True, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                said = pathlib.Path(log).read_text(errors="replace").strip().splitlines()
                raise LeftOut(f"{command[0]} did not start: {said[-1] if said else ''}"[:200])
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def ctr(directory, build):
    directory.mkdir()
    address = directory / "containerd.sock"
    config = directory / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                      f'[ttrpc]\naddress = "{address}.ttrpc"\n')
    client = [program("ctr"), "-a", str(address), "-n", "pulga-bench"]
    with serving([program("containerd"), "--root", directory / "root", "--state",
                  directory / "state", "--address", address, "--config", config],
                 [*client, "version"], directory / "log"):
        checked([*client, "images", "import", build / "images" / "hello.tar"])
        # It cannot limit processes, and drops capabilities one by one only.
        yield (f"{' '.join(client)} run --rm --fifo-dir {directory}/fifo --memory-limit {64 << 20} "
               f"--cpus 1 --read-only --seccomp --cgroup /{CGROUPS}/ctr "
               "docker.io/library/hello:1 hello")


@contextlib.contextmanager
def dockerd(directory, *flags):
    """One that changes nothing of the machine's network; how its client is called."""
    directory.mkdir()
    address = f"unix://{directory}/docker.sock"
    client = [program("docker"), "--host", address]
    with serving([program("dockerd"), "--data-root", directory / "data", "--exec-root",
                  directory / "exec", "--pidfile", directory / "pid", "--host", address,
                  "--bridge", "none", "--iptables=false", "--ip6tables=false",
                  "--ip-forward=false", *flags], [*client, "version"], directory / "log"):
        yield client


@contextlib.contextmanager
def docker(directory, build):
    with dockerd(directory, "--cgroup-parent", f"/{CGROUPS}/docker") as client:
        checked([*client, "load", "-q", "-i", build / "images" / "hello.tar"])
        yield f"{' '.join(client)} run {LIMITS} hello:1"


# Name, how it is made ready, and how much slower than our cold and our parked start it is wanted.
PEERS = (("crun run", lambda *a: contextlib.nullcontext(bundled("crun", *a)), 30, 100),
         ("runc run", lambda *a: contextlib.nullcontext(bundled("runc", *a)), 60, 200),
         ("bwrap", lambda *a: contextlib.nullcontext(bwrap(*a)), None, None),
         ("podman run", podman, None, None),
         ("ctr run", ctr, None, None),
         ("docker run", docker, 500, 1500))


def made_ready(stack, directory, build):
    """name -> command line of those that ran once, and name -> why not of the others."""
    commands, left_out = {}, {}
    for name, ready, *_ in PEERS:
        try:
            command = stack.enter_context(ready(directory / name.split()[0], build))
            said = checked(command.split())
            if said != HELLO:
                raise LeftOut(f"it printed {said[:100]!r}")
            commands[name] = command
        except LeftOut as why:
            left_out[name] = str(why)
            print(f"peers: {name} is LEFT OUT: {why}", file=sys.stderr)
    return commands, left_out


def rows_for(condition, results, left_out):
    """The table's rows of one condition: everybody's time, and how much longer it is than ours."""
    by = {r["name"]: r for r in results if r["condition"] == condition}
    cold, parked = (by[f"{kind}, in daemon"] for kind in ("cold", "parked"))
    rows = [Row(f"{what}, {condition}", times(r), "") for what, r in (
        ("bare vfork+exec", by["bare vfork+exec"]), ("our cold start", cold),
        ("our parked start", parked))]
    for name, _, wanted_cold, wanted_parked in PEERS:
        wanted = f">= {wanted_cold} x, >= {wanted_parked} x" if wanted_cold else ""
        if name in left_out:
            rows.append(Row(f"{name}, {condition}", f"left out: {left_out[name]}", wanted))
            continue
        slower = [by[name]["p50_us"] / ours["p50_us"] for ours in (cold, parked)]
        rows.append(Row(f"{name}, {condition}", f"{slower[0]:.1f} x our cold start, "
                        f"{slower[1]:.0f} x our parked one; {times(by[name])}", wanted))
    return rows


def peer_figures(directory, build, rounds):
    (directory / "config.json").write_text("{}")
    os.environ.update(HOME=str(directory), PATH=SYSTEM, DOCKER_CONFIG=str(directory))
    with contextlib.ExitStack() as stack:
        commands, left_out = made_ready(stack, directory, build)
        bench = [build / "bin" / "pulga-start-bench", "--launcher",
                 build / "bin" / "pulga-launcher", "--program", build / "bin" / "rootfs" / "hello",
                 "--rounds", str(rounds)]
        for name, command in commands.items():
            bench += ["--peer", f"{name}={command}"]
        results = run_json(bench) + run_json([*bench, "--gap-ms", "20"])
    return [row for condition in ("tight", "paced")
            for row in rows_for(condition, results, left_out)]


def remove_cgroups(hierarchies="/sys/fs/cgroup", seconds=10, parent=CGROUPS):
    """Deepest first; the kernel lets go of one a moment after its last process has gone, which a
    frozen one does once it is thawed."""
    for state in pathlib.Path(hierarchies, "freezer", parent).glob("*/freezer.state"):
        state.write_text("THAWED")
    for state in pathlib.Path(hierarchies, parent).glob("*/cgroup.freeze"):
        state.write_text("0")
    deadline = time.monotonic() + seconds
    while True:
        left = [folder for where in (parent, f"*/{parent}")  # of v2, of v1
                for top in pathlib.Path(hierarchies).glob(where)
                for folder, _, _ in os.walk(top, topdown=False)]
        if not left:
            return
        for folder in left:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if time.monotonic() > deadline:
            sys.exit(f"peers: cgroups stay: {' '.join(left)}")
        time.sleep(0.1)


def run_inside(directory):
    """This program again, in namespaces that end with it."""
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh",
         "-c", PREPARE, "sh", sys.executable, "-B", __file__, *sys.argv[1:], "--inside",
         directory])
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        remove_cgroups()


def main():
    parser = bench_options(__doc__)
    parser.add_argument("--rounds", default=100, type=int)
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is None:
        require_quiet(options.busy)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with tempfile.TemporaryDirectory(prefix="pulga-peers-") as directory:
            os.chmod(directory, 0o755)  # for root of a user namespace
            sys.exit(run_inside(directory))
    found = table(peer_figures(options.inside, options.build.resolve(), options.rounds))
    print(found)
    if options.write:
        write_table("peers", found)


if __name__ == "__main__":
    main()
