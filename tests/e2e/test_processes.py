"""The processes: who has which privileges, who restarts whom, what is left when they die."""

import os
import re
import signal
import subprocess
import threading
import time
import unittest

import leaks
from harness import (Case, Daemon, PULGA, command_line, in_parallel, is_alive, skip_unless,
                     status_of, wait_until)

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Privileges(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()

    def test_the_daemon_has_neither_root_nor_any_capability(self):
        status = status_of(self.daemon.daemon_pid())
        self.assertEqual(set(status["Uid"].split()), {str(self.daemon.uid)})
        self.assertNotIn("0", status["Gid"].split())
        self.assertEqual(status["Groups"].split(), [])
        for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[field], 16), 0, field)
        self.assertEqual(status["NoNewPrivs"], "1")

    def test_every_thread_of_the_daemon_is_without_capabilities(self):
        pid = self.daemon.daemon_pid()
        threads = os.listdir(f"/proc/{pid}/task")
        self.assertGreaterEqual(len(threads), 3)
        for thread in threads:
            status = status_of(f"{pid}/task/{thread}")
            self.assertEqual(int(status["CapEff"], 16), 0)
            self.assertEqual(set(status["Uid"].split()), {str(self.daemon.uid)})

    def test_the_spawner_has_no_privilege_over_the_host(self):
        self.daemon.call("probe", b"say hi")
        spawners = self.spawners()
        self.assertTrue(spawners)
        host_user_namespace = os.readlink("/proc/self/ns/user")
        for pid in spawners:
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/user"), host_user_namespace)
            self.assertNotIn("0", status_of(pid)["Uid"].split())

    def test_a_running_program_has_no_capability_in_any_set(self):
        reply = self.daemon.call("probe", b"caps")
        values = dict(line.split(":\t") for line in reply.text.splitlines())
        for field in CAPABILITY_SETS:
            self.assertEqual(int(values[field], 16), 0, field)
        self.assertEqual((values["NoNewPrivs"], values["Seccomp"]), ("1", "2"))

    def test_the_launcher_listens_on_nothing(self):
        pid = self.daemon.launcher_pid()
        inodes = {n.split("[")[1].rstrip("]") for n in self.socket_links(pid)}
        self.assertTrue(inodes, "it has its socket to the daemon")
        for table in ("tcp", "tcp6", "udp", "udp6"):
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as f:
                for line in f.readlines()[1:]:
                    self.assertNotIn(line.split()[9], inodes, f"{table} socket in the launcher")

    @staticmethod
    def socket_links(pid):
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        return [link for link in links if link.startswith("socket:[")]

    def spawners(self):
        """Below the launcher, in a user namespace that is not the host's."""
        host = os.readlink("/proc/self/ns/user")
        found = []
        for pid in leaks.descendants(self.daemon.launcher_pid()):
            try:
                if os.readlink(f"/proc/{pid}/ns/user") != host:
                    found.append(pid)
            except OSError:
                pass
        return found

    def test_the_data_directory_is_closed_to_others(self):
        self.assertEqual(self.daemon.data.stat().st_mode & 0o7777, 0o700)
        self.assertEqual((self.daemon.data / "admin.key").stat().st_mode & 0o7777, 0o600)

    def test_a_second_daemon_on_the_directory_is_refused(self):
        second = Daemon()
        command = [PULGA, "serve", "--data", str(self.daemon.data), "--listen",
                   f"127.0.0.1:{second.port}", "--user", str(self.daemon.uid)]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        os.rmdir(second.temp)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), "(?i)already|in use|another")


class IdleMemory(Case):
    def test_idle_the_three_processes_together_hold_less_than_ten_megabytes(self):
        # Resident, not proportional: what others on the machine share with us must not count.
        kept = {}
        for pid in self.daemon.processes():
            kept[command_line(pid)] = int(status_of(pid)["VmRSS"].split()[0]) * 1024
        self.assertGreaterEqual(len(kept), 3)
        self.assertLess(sum(kept.values()), 10_000_000, kept)


class Death(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()

    def works(self):
        try:
            return (self.daemon.call("probe", b"say hi").text == "hi\n"
                    and self.daemon.call("web", path="/").status == 200)
        except OSError:
            return False

    def test_a_killed_launcher_comes_back_and_its_sandboxes_die_with_it(self):
        self.assertTrue(self.works())
        daemon_before = self.daemon.daemon_pid()
        launcher = self.daemon.launcher_pid()
        below = [p for p in leaks.descendants(launcher) if p != launcher]
        self.assertTrue(below)
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(p) for p in below), 10, "sandboxes die too")
        wait_until(self.works, 20, "functions come back")
        self.assertEqual(self.daemon.daemon_pid(), daemon_before, "the daemon served on")
        self.assertNotEqual(self.daemon.launcher_pid(), launcher)
        self.assertIn("launcher", self.daemon.log())
        system = self.daemon.api("GET", "/v1/system").json()
        self.assertGreaterEqual(system["launcher_restarts"], 1)

    def test_a_call_in_flight_when_the_launcher_dies_gets_a_status(self):
        self.assertTrue(self.works())
        results = []
        caller = threading.Thread(
            target=lambda: results.append(self.daemon.call("probe", b"sleep 20")))
        caller.start()
        time.sleep(0.5)
        os.kill(self.daemon.launcher_pid(), signal.SIGKILL)
        caller.join(30)
        self.assertEqual(len(results), 1)
        self.assertEqual(results[0].status, 503)
        # Its spawner dies with it, and may be heard of first.
        self.assertIn(results[0].outcome,
                      ("setup-failed:launcher-lost", "setup-failed:spawner-lost"))
        self.assertIn("may have run", results[0].text)
        wait_until(self.works, 20, "functions come back")

    def test_a_killed_spawner_ends_only_its_version(self):
        self.assertTrue(self.works())
        launcher = self.daemon.launcher_pid()
        children = [p for p in leaks.descendants(launcher)
                    if leaks.status_of(p).get("PPid") == str(launcher)]
        self.assertTrue(children)
        os.kill(children[0], signal.SIGKILL)
        wait_until(self.works, 20, "both functions work")
        self.assertEqual(self.daemon.launcher_pid(), launcher)

    def test_a_killed_daemon_comes_back_with_its_functions(self):
        self.assertTrue(self.works())
        daemon = self.daemon.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: not is_alive(daemon), 5, "the daemon is dead")
        wait_until(self.works, 20, "functions come back")
        names = [f["name"] for f in self.daemon.api("GET", "/v1/functions").json()["functions"]]
        self.assertEqual(sorted(names), ["probe", "web"])

    def test_hup_reloads_and_serves_on(self):
        daemon = self.daemon.daemon_pid()
        os.kill(daemon, signal.SIGHUP)
        wait_until(lambda: "reload" in self.daemon.log().lower(), 10, "the log says reloaded")
        self.assertEqual(self.daemon.daemon_pid(), daemon)
        self.daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        self.assertTrue(self.works())

    def test_stray_signals_change_nothing(self):
        daemon = self.daemon.daemon_pid()
        for signo in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP):
            for _ in range(20):
                os.kill(daemon, signo)
        self.assertTrue(self.works())
        self.assertEqual(self.daemon.daemon_pid(), daemon)


class Ends(unittest.TestCase):
    """Each case has its own daemon, because it ends it."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")

    def ready(self):
        daemon = Daemon()
        self.addCleanup(daemon.__exit__, None, None, None)
        daemon.start()
        daemon.deploy_probe()
        daemon.deploy_http()
        self.assertEqual(daemon.call("probe", b"say hi").status, 200)
        self.assertEqual(daemon.call("web", path="/").status, 200)
        self.assertTrue(leaks.cgroups_of(daemon.data), "the leak check sees no cgroup of ours")
        return daemon

    def assert_nothing_left(self, daemon):
        try:
            wait_until(lambda: not leaks.nothing_left(daemon), 10, "everything is gone")
        except AssertionError:
            self.fail("left behind:\n" + "\n".join(leaks.nothing_left(daemon)))

    def test_term_ends_with_status_zero_and_leaves_nothing(self):
        daemon = self.ready()
        self.assertEqual(daemon.stop(), 0)
        self.assert_nothing_left(daemon)

    def test_term_while_a_dead_daemon_is_replaced_ends_after_the_launcher_has_cleaned_up(self):
        for pause in (0, 0.005, 0.02):
            daemon = self.ready()
            for n in range(4):
                daemon.put(f"more-{n}", {"image": "probe:1", "mode": "exec", "scale": {"min": 1}})
            os.kill(daemon.daemon_pid(), signal.SIGKILL)
            time.sleep(pause)
            daemon.stop()  # with 1 when the keeper had not seen the death: the daemon's own status
            self.assertEqual(leaks.nothing_left(daemon), [], f"stopped {pause} s after")

    def test_an_orderly_stop_is_quiet(self):
        daemon = self.ready()
        for n in range(6):  # as many spawners, which end as their daemon does
            daemon.put(f"more-{n}", {"image": "probe:1", "mode": "exec"})
        self.assertEqual(daemon.stop(), 0)
        loud = [line for line in daemon.log().splitlines() if " info " not in line]
        self.assertEqual(loud, [])

    def test_int_does_the_same(self):
        daemon = self.ready()
        self.assertEqual(daemon.stop(signal.SIGINT), 0)
        self.assert_nothing_left(daemon)

    def test_term_under_load_gives_every_request_a_status(self):
        daemon = self.ready()
        replies = []

        def call_slowly(_):
            reply = daemon.call("probe", b"sleep 2; say done")
            replies.append(reply)
            return reply

        caller = threading.Thread(target=lambda: in_parallel(12, call_slowly))
        caller.start()
        time.sleep(0.7)
        self.assertEqual(daemon.stop(), 0)
        caller.join(30)
        self.assertEqual(len(replies), 12, "a call got no answer")
        for reply in replies:
            self.assertIn(reply.status, (200, 429, 503), repr(reply))
        self.assertTrue(any(r.text == "done\n" for r in replies), "running calls may finish")
        self.assert_nothing_left(daemon)

    def test_a_killed_keeper_takes_everything_with_it(self):
        daemon = self.ready()
        pids = list(daemon.processes())
        daemon.process.kill()
        daemon.process.wait()
        wait_until(lambda: not any(is_alive(p) for p in pids), 10, "every process is gone")
        daemon.start()  # the next start sweeps what the dead one could not
        self.assertEqual(daemon.call("probe", b"say hi").status, 200)
        daemon.stop()
        self.assert_nothing_left(daemon)

    def test_all_three_killed_at_once_leave_only_cgroups_and_the_next_start_sweeps_them(self):
        daemon = self.ready()
        pids = list(daemon.processes())
        for pid in (daemon.process.pid, daemon.launcher_pid(), daemon.daemon_pid()):
            os.kill(pid, signal.SIGKILL)
        daemon.process.wait()
        wait_until(lambda: not any(is_alive(p) for p in pids), 10, "every process is gone")
        self.assertEqual([line for line in leaks.nothing_left(daemon) if "cgroup" not in line], [])
        self.assertTrue(self.version_cgroups(daemon), "nobody was there to remove them")
        daemon.start()
        wait_until(lambda: not self.version_cgroups(daemon), 10, "the sweep")
        self.assertEqual(daemon.call("probe", b"say hi").status, 200)
        daemon.stop()
        self.assert_nothing_left(daemon)

    def version_cgroups(self, daemon):
        return [path for path in leaks.cgroups_of(daemon.data) if re.search(r"/v\d+", path)]

    def test_a_crash_loop_backs_off(self):
        daemon = self.ready()
        kills, started = 0, time.monotonic()
        while time.monotonic() - started < 6:
            pid = daemon.process_named("pulga-launcher", " launcher")
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                kills += 1
            time.sleep(0.01)
        self.assertGreaterEqual(kills, 2)
        self.assertLess(kills, 60, "the keeper restarts without pause")
        wait_until(lambda: daemon.call("probe", b"say hi").status == 200, 40, "it recovers")

    def test_everything_dead_at_once_comes_back(self):
        daemon = self.ready()
        for pid in (daemon.daemon_pid(), daemon.launcher_pid()):
            os.kill(pid, signal.SIGKILL)
        wait_until(daemon.healthy, 20, "the daemon comes back")
        wait_until(lambda: daemon.call("probe", b"say hi").status == 200, 20, "functions too")


if __name__ == "__main__":
    unittest.main()
