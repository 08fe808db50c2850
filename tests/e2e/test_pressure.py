"""A board made of files: it gets short of memory, and hot. What the daemon gives up, what it puts
off, what it refuses, what it says, and that it is over when it is over."""

import os
import re
import unittest

from harness import WARM, Case, Daemon, skip_unless, wait_until

TIMES = ("--pressure-interval", "50ms", "--pressure-hold", "300ms")


class Board:
    """A /proc and /sys of our own under `root`."""

    def __init__(self, root):
        self.root = root
        self.put("proc/device-tree/model", "Raspberry Pi Zero 2 W Rev 1.0\0")
        self.put("proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-v8\n")
        self.put("proc/self/smaps", "x\nKernelPageSize:       16 kB\n")
        self.put("proc/cpuinfo", "".join(f"processor : {n}\nCPU implementer : 0x41\n"
                                         "CPU part : 0xd03\n\n" for n in range(4)))
        self.put("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self.available(300)
        self.press(0)
        self.heat(45)

    def put(self, path, text):
        """As the kernel does it: never half a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(file.name + ".new")
        beside.write_text(text)
        beside.rename(file)

    def available(self, mib):
        self.put("proc/meminfo", f"MemTotal: 425000 kB\nMemAvailable: {mib * 1024} kB\n"
                                 "SwapTotal: 0 kB\n")

    def press(self, percent):
        line = f"avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n"
        self.put("proc/pressure/memory", f"some {line}full {line}")

    def heat(self, celsius):
        self.put("sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000}\n")


class Pressure(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon(*TIMES)
        self.board = Board(self.daemon.temp / "board")
        self.daemon.flags += ["--board-root", str(self.board.root)]
        self.daemon.start()
        self.addCleanup(self.daemon.__exit__, None, None, None)

    def told(self):
        return self.daemon.api("GET", "/v1/system").json()["board"]

    def until(self, level):
        return wait_until(lambda: self.told()["level"] == level and self.told(), 30,
                          lambda: f"the level is {level}: {self.told()}")

    def instances(self, name):
        return self.daemon.api("GET", "/v1/functions/" + name).json()["instances"]

    def changes(self):
        return re.findall(r"pressure: (\w+ -> \w+), .*", self.daemon.log())

    def test_short_of_memory_it_shrinks_then_sheds_and_then_is_calm_again(self):
        self.daemon.deploy_http("idle", scale={"max": 1, "idle": "1h"})
        self.daemon.deploy_http("kept", scale={"min": 1, "max": 1, "idle": "1h"})
        for name in ("idle", "kept"):
            self.assertEqual(self.daemon.call(name, path="/").status, 200)
        self.board.press(12)
        told = self.until("shrink")
        self.assertEqual(told["why"], "memory: tasks waited for it 12 % of the time "
                                      "(shrink at 10 %)")
        wait_until(lambda: not self.instances("idle"), 30, "the idle instance is given up")
        self.assertEqual(len(self.instances("kept")), 1, "scale.min is kept")
        self.assertEqual(self.daemon.call("idle", path="/").status, 200, "calls still get one")

        self.board.available(12)
        self.until("shed")
        wait_until(lambda: not self.instances("idle"), 30, "the idle instance is given up")
        refused = self.daemon.call("idle", path="/")
        self.assertEqual((refused.status, refused.outcome), (503, "rejected:pressure"))
        self.assertEqual(refused.headers["retry-after"], "10")
        self.assertIn("12.0 MiB available", refused.text)
        warm = self.daemon.call("kept", path="/")
        self.assertEqual(warm.status, 200)
        self.assertIn(warm.headers["x-pulga-start"], WARM)

        self.board.available(300)
        self.board.press(0)
        told = self.until("calm")
        self.assertEqual(told["why"], "")
        self.assertEqual(self.daemon.call("idle", path="/").status, 200)
        changes = self.changes()
        self.assertEqual(changes[:2], ["calm -> shrink", "shrink -> shed"], changes)
        self.assertTrue(changes[-1].endswith("-> calm"), changes)
        self.assertLessEqual(len(changes), 4, "each change is told once")
        self.assertEqual(told["level_changes"], len(changes))

    def test_hot_it_parks_nothing_ahead_of_a_call(self):
        self.daemon.deploy_probe("job", scale={"parked": 1, "idle": "1h"})
        self.daemon.call("job", b"")
        wait_until(lambda: [i["step"] for i in self.instances("job")] == ["parked"], 30, "parked")
        self.board.heat(78)
        self.assertIn("78 C in cpu-thermal", self.until("delay")["why"])
        wait_until(lambda: not self.instances("job"), 30, "the parked sandbox is given up")
        self.assertEqual(self.daemon.call("job", b"").headers["x-pulga-start"], "cold")
        self.board.heat(50)
        self.until("calm")
        wait_until(lambda: [i["step"] for i in self.instances("job")] == ["parked"], 30,
                   "parked again")

    def test_the_system_report_and_doctor_tell_the_board(self):
        facts = self.told()["facts"]
        self.assertEqual(facts["model"], "Raspberry Pi Zero 2 W Rev 1.0")
        self.assertEqual((facts["class"], facts["page_bytes"]), ("small board", 16384))
        self.assertEqual(facts["core_types"][0]["name"], "Cortex-A53")
        self.assertIsNone(self.told()["readings"]["io_pressure"])
        self.board.heat(79)
        shown = self.daemon.cli("doctor", "--board-root", str(self.board.root)).stdout.decode()
        self.assertIn("Raspberry Pi Zero 2 W Rev 1.0, small board", shown)
        self.assertIn("pressure now: delay, temperature: 79 C", shown)

    def test_files_cut_or_gone_leave_the_daemon_as_it_is(self):
        self.board.put("proc/pressure/memory", "some avg10=9")
        self.board.put("proc/meminfo", "MemTotal")
        (self.board.root / "sys/class/thermal/thermal_zone0/temp").unlink()
        wait_until(lambda: self.told()["readings"]["celsius"] is None, 30, "the sensor is gone")
        told = self.told()
        self.assertEqual(told["level"], "calm")
        self.assertIsNone(told["readings"]["memory_pressure"])

    def test_bad_steps_are_refused_by_name(self):
        for key, value in (("pressure-memory", "50,25,10"), ("pressure-available", "1,2,3"),
                           ("pressure-temperature", "hot"), ("pressure", "maybe"),
                           ("board-root", "relative"), ("pressure-interval", "1ms")):
            done = self.daemon.cli("serve", "--" + key, value)
            self.assertEqual(done.returncode, 2, key)
            self.assertIn(key, done.stderr.decode())


class RealBoard(Case):
    flags = ("--board-root", "/")

    def test_this_machine_is_read_by_who_has_no_privileges(self):
        told = self.daemon.api("GET", "/v1/system").json()["board"]
        self.assertTrue(told["acts"])
        self.assertGreater(told["readings"]["available_bytes"], 0)
        self.assertGreater(told["facts"]["cores"], 0)
        skip_unless(told["readings"]["memory_pressure"] is not None, "this kernel has no PSI")
        self.assertLess(told["readings"]["memory_pressure"]["some_avg10"], 100.1)

    def test_the_kernel_wakes_a_daemon_without_privileges(self):
        told = self.daemon.api("GET", "/v1/system").json()["board"]
        skip_unless(told["readings"]["memory_pressure"] is not None, "this kernel has no PSI")
        version = tuple(int(n) for n in os.uname().release.split(".")[:2])
        skip_unless(version >= (6, 6), "before Linux 6.6 triggers need a capability")
        self.assertTrue(told["woken_by_kernel"], self.daemon.log())


if __name__ == "__main__":
    unittest.main()
