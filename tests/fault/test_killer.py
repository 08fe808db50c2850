"""kill -9 of any process of ours at any time, while calls, imports and deploys run: the survivors
clean up, whatever was acknowledged is there, and the walls are what they were (the invariants of
docs/security.md). Seeded: PULGA_KILLER_SEED names a run, PULGA_KILLER_SECONDS its length (30).
"""

import collections
import http.client
import os
import random
import re
import signal
import sqlite3
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
import leaks  # noqa: E402
from harness import image_archive as archive  # noqa: E402
from harness import (OwnDaemonCase, command_line, image_of, is_alive, parent_of,  # noqa: E402
                     probe_binary, status_of, wait_until)

SECONDS = float(os.environ.get("PULGA_KILLER_SECONDS", "30"))
SEED = int(os.environ.get("PULGA_KILLER_SEED", str(time.time_ns() % 1_000_000)))
# What is restarted with a back-off is killed less often, or the run would be one of waiting.
WEIGHTS = {"short-lived": 6, "spawner": 3, "init": 3, "program": 3, "helper": 4, "launcher": 1.5,
           "daemon": 1, "keeper": 0.5}
WHOLE = ("launcher", "daemon", "keeper")
PATIENCE = 90
LOST = (OSError, http.client.HTTPException)
HOST_USERS = os.readlink("/proc/self/ns/user")


def made_image(tag, content):
    return archive.docker_archive([image_of({"probe": probe_binary(), "own": content}, tag,
                                            Entrypoint=["/probe"])])


def kinds_of(daemon):
    """{kind: [pid]} of all processes that are there right now."""
    found = collections.defaultdict(list)
    keeper, daemon_now, launcher = daemon.process.pid, daemon.daemon_now(), daemon.launcher_now()
    found["keeper"].append(keeper)
    if daemon_now:
        found["daemon"].append(daemon_now)
    if not launcher:
        return found
    found["launcher"].append(launcher)
    spawners = set()
    others = [p for p in leaks.descendants(launcher) if p != launcher]
    for pid in (p for p in others if parent_of(p) == launcher):
        try:
            users = os.readlink(f"/proc/{pid}/ns/user")
        except OSError:
            continue
        if status_of(pid).get("Name", "").startswith(("pulga-unp", "pulga-fet")):
            found["helper"].append(pid)
        elif users == HOST_USERS:
            found["short-lived"].append(pid)  # a set-up child, a janitor, a publisher
        else:
            spawners.add(pid)
            found["spawner"].append(pid)
    inits = {p for p in others if parent_of(p) in spawners}
    found["init"] += inits
    found["program"] += [p for p in others if parent_of(p) in inits]
    return found


class Load:
    """Calls, imports and deploys until stopped; remembers what was acknowledged."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.stopping = threading.Event()
        self.images = {}  # tag: True is there, False is not, None nobody knows
        self.done = collections.Counter()
        self.threads = [threading.Thread(target=self.repeat, args=(job,), daemon=True)
                        for job in (self.call_probe, self.call_probe, self.call_web,
                                    self.import_and_delete, self.deploy)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)

    def repeat(self, job):
        serial = 0
        while not self.stopping.is_set():
            serial += 1
            try:
                job(serial)
                self.done[job.__name__] += 1
            except LOST:
                time.sleep(0.05)

    def call_probe(self, serial):
        self.daemon.call("probe", b"sleep 0.05" if serial % 3 else b"say hi", timeout=30)

    def call_web(self, _):
        self.daemon.call("web", path="/", timeout=30)
        time.sleep(0.02)

    def admin(self, method, path, body=None):
        return self.daemon.request(method, path, body, timeout=60, admin=True).status

    def import_and_delete(self, serial):
        tag = f"made-{serial % 4}:1"
        self.images[tag] = None
        if self.admin("POST", "/v1/images", made_image(tag, b"%d" % serial)) == 201:
            self.images[tag] = True
        if serial % 2:
            known, self.images[tag] = self.images[tag], None
            if self.admin("DELETE", "/v1/images/" + tag) == 204:
                self.images[tag] = False
            elif known is None:
                self.images[tag] = None

    def deploy(self, serial):
        """A new version each time: a set-up child, a spawner, a janitor for the one before."""
        spec = {"image": "probe:1", "mode": "exec", "env": {"SERIAL": str(serial)}}
        self.daemon.api("PUT", "/v1/functions/other", spec, timeout=30)
        self.daemon.call("other", b"say hi", timeout=30)


class Killer(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.deploy_probe()
        self.daemon.deploy_http()
        self.random = random.Random(SEED)
        self.killed = collections.Counter()

    def works(self):
        try:
            return (self.daemon.healthy() and self.daemon.call("probe", b"say hi").text == "hi\n"
                    and self.daemon.call("web", path="/").status == 200)
        except LOST:
            return False

    def walls(self):
        """What a program says of its own walls."""
        text = self.daemon.call("probe", b"caps").text
        return {line for line in text.splitlines()
                if line.startswith(("Cap", "NoNewPrivs", "Seccomp"))}

    # --- the knife

    def strike(self, kind):
        """Kills one of that kind; what lives for milliseconds is waited for a moment."""
        deadline = time.monotonic() + (1.0 if kind in ("short-lived", "helper") else 0.3)
        while time.monotonic() < deadline:
            pids = kinds_of(self.daemon)[kind]
            if pids:
                try:
                    os.kill(self.random.choice(sorted(pids)), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed[kind] += 1
                return True
        return False

    def keeper_died(self):
        self.daemon.process.wait()
        wait_until(lambda: not self.survivors(), PATIENCE, lambda: f"alive: {self.survivors()}")
        self.daemon.start(PATIENCE)

    def survivors(self):
        return {p: command_line(p) for p in leaks.our_processes(self.daemon) if is_alive(p)}

    def rampage(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            kind = self.random.choices(list(WEIGHTS), WEIGHTS.values())[0]
            if not self.strike(kind):
                continue
            if kind == "keeper":
                self.keeper_died()
            if kind in WHOLE or self.random.random() < 0.1:
                wait_until(self.works, PATIENCE, lambda: f"works after {kind} was killed: "
                                                         + self.daemon.log()[-3000:])
            time.sleep(self.random.random() * 0.2)

    # --- what must hold

    def leftovers(self):
        """What no process that lives has use for; empty in the end."""
        kinds = kinds_of(self.daemon)
        found = [f"{kind} {pid}" for kind in ("short-lived", "helper") for pid in kinds[kind]]
        named = leaks.named_pids(self.daemon)
        found += [f"zombie {pid}" for pid in leaks.zombies_below(named.values())]
        cgroups = leaks.cgroups_of(self.daemon.data)
        found += [path for path in cgroups if "/unpack-" in path]
        versions = set(re.findall(r"/(v\d+)(?:/|$)", "\n".join(cgroups), re.MULTILINE))
        if len(versions) != len(kinds["spawner"]):
            found.append(f"cgroups of {sorted(versions)}, spawners {kinds['spawner']}")
        layers = self.daemon.data / "layers"
        found += [str(p) for p in layers.iterdir() if p.name.startswith((".staging", ".trash"))]
        # Mounts live in namespaces of spawners; the launcher's own must show none of ours.
        found += [line for pid in (named["launcher"], "self") for line in leaks.mounts_of(pid)
                  if str(self.daemon.data) in line]
        return found

    def stray_layers(self, base):
        """{layer: where it is}, of those that are not both in the store and in its list."""
        known = {row[0] for row in base.execute("SELECT chain_id FROM layers")}
        there = {p.name for p in (self.daemon.data / "layers").iterdir()} - {".mnt"}
        return {layer: "listed" if layer in known else "on disk" for layer in known ^ there}

    def check_store(self, images):
        listed = {ref for image in self.daemon.api("GET", "/v1/images").json()["images"]
                  for ref in image["refs"]}
        for tag, there in images.items():
            if there is not None:
                self.assertEqual(tag in listed, there, f"{tag}: {listed}")
        functions = self.daemon.api("GET", "/v1/functions").json()["functions"]
        self.assertLessEqual({"probe", "web"}, {f["name"] for f in functions})
        base = sqlite3.connect(f"file:{self.daemon.data}/pulga.db?mode=ro", uri=True)
        self.addCleanup(base.close)
        self.assertEqual(base.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        wait_until(lambda: not self.stray_layers(base), 20, lambda: self.stray_layers(base))
        done = self.daemon.cli("image", "verify")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_whoever_is_killed_the_survivors_clean_up(self):
        wait_until(self.works, PATIENCE, "both functions work")
        walls = self.walls()
        self.assertGreaterEqual(len(walls), 6)
        with Load(self.daemon) as load:
            self.rampage(SECONDS)
        print(f"seed {SEED}: killed {dict(self.killed)}; done {dict(load.done)}", file=sys.stderr)
        wait_until(self.works, PATIENCE, lambda: f"seed {SEED}: works: {self.daemon.log()[-3000:]}")
        self.assertEqual(self.walls(), walls, f"seed {SEED}")
        wait_until(lambda: not self.leftovers(), PATIENCE,
                   lambda: f"seed {SEED}: left: {self.leftovers()}\n{self.daemon.log()[-3000:]}")
        self.check_store(load.images)
        if SECONDS >= 20:  # or nothing was tried
            self.assertGreaterEqual(len(self.killed), 6, self.killed)
            self.assertGreater(load.done["call_probe"], 10, load.done)
        self.assertEqual(self.daemon.stop(), 0)
        wait_until(lambda: not leaks.nothing_left(self.daemon), PATIENCE,
                   lambda: f"seed {SEED}: {leaks.nothing_left(self.daemon)}")


if __name__ == "__main__":
    unittest.main()
