"""The processes: who has which privileges, who restarts whom, what is left when they die."""

import http.client
import os
import re
import signal
import subprocess
import threading
import time
import unittest
from pathlib import Path

import leaks
from harness import (Case, Daemon, IMAGES, PULGA, command_line, in_parallel, is_alive, skip_unless,
                     status_of, wait_until)

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Privileges(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()

    def assert_without_privilege(self, status, who):
        """/proc/PID/status of a process that is the daemon's user and has no way to be more."""
        for field in ("Uid", "Gid"):  # real, effective, saved, of the file system
            self.assertEqual(status[field].split(), [str(self.daemon.uid)] * 4, f"{who} {field}")
        self.assertNotEqual(self.daemon.uid, 0)
        self.assertEqual(status["Groups"].split(), [], who)
        for field in CAPABILITY_SETS:
            self.assertEqual(int(status[field], 16), 0, f"{who} {field}")
        self.assertEqual(status["NoNewPrivs"], "1", who)

    def test_the_daemon_has_neither_root_nor_any_capability(self):
        self.assert_without_privilege(status_of(self.daemon.daemon_pid()), "the daemon")

    def test_every_thread_of_the_daemon_is_the_same(self):
        pid = self.daemon.daemon_pid()
        threads = os.listdir(f"/proc/{pid}/task")
        self.assertGreaterEqual(len(threads), 3)
        for thread in threads:
            status = status_of(f"{pid}/task/{thread}")
            self.assert_without_privilege(status, f"thread {status['Name']}")

    def test_the_daemon_may_not_become_root_again(self):
        status = status_of(self.daemon.daemon_pid())
        self.assertEqual(set(status["CapBnd"]), {"0"}, "not even by a set-uid program")
        self.assertTrue(os.readlink(f"/proc/{self.daemon.daemon_pid()}/exe").endswith("/pulga"))

    def test_the_spawner_has_no_privilege_over_the_host(self):
        self.daemon.call("probe", b"say hi")
        spawners = self.spawners()
        self.assertTrue(spawners)
        host_user_namespace = os.readlink("/proc/self/ns/user")
        for pid in spawners:
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/user"), host_user_namespace)
            self.assertNotIn("0", status_of(pid)["Uid"].split())
            self.assertNotIn("0", status_of(pid)["Gid"].split())
            self.assertEqual(status_of(pid)["Seccomp"], "2")

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
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        os.rmdir(second.temp)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), "(?i)already|in use|another")

    def test_a_user_who_is_not_there_is_refused(self):
        other = Daemon()
        done = subprocess.run([PULGA, "serve", "--data", str(other.data), "--user", "nosuch"],
                              capture_output=True, timeout=60, check=False)
        os.rmdir(other.temp)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("user nosuch: this host has none of that name", done.stderr.decode())


class IdleMemory(Case):
    def test_idle_the_three_processes_hold_little_of_their_own(self):
        # Not the pages of their files: how many of these are mapped around a touched one is the
        # kernel's and the file system's choice. bench/ has the whole.
        def own():
            return {command_line(pid): anonymous_bytes(pid) for pid in self.daemon.processes()}

        self.assertGreaterEqual(len(own()), 3)
        # What starting took goes back with the daemon's first trim, half a minute later.
        wait_until(lambda: sum(own().values()) < 2_500_000, 60, lambda: str(own()))


def anonymous_bytes(pid):
    """Resident memory that is no file's page, or was changed in it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.M)[1]) * 1024


class Death(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()

    def works(self):
        try:
            return (self.daemon.call("probe", b"say hi").text == "hi\n"
                    and self.daemon.call("web", path="/").status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def test_a_killed_launcher_comes_back_and_its_sandboxes_die_with_it(self):
        self.assertTrue(self.works())
        daemon_before = self.daemon.daemon_pid()
        launcher = self.daemon.launcher_pid()
        below = [p for p in leaks.descendants(launcher) if p != launcher]
        self.assertTrue(below)
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(p) for p in below), 60, "sandboxes die too")
        wait_until(self.works, 60, "functions come back")
        self.assertEqual(self.daemon.daemon_pid(), daemon_before, "the daemon served on")
        self.assertNotEqual(self.daemon.launcher_pid(), launcher)
        self.assertIn("launcher", self.daemon.log())
        system = self.daemon.api("GET", "/v1/system").json()
        self.assertGreaterEqual(system["launcher_restarts"], 1)

    def test_a_call_in_flight_when_the_launcher_dies_gets_a_status(self):
        self.assertTrue(self.works())
        results = []
        caller = threading.Thread(
            target=lambda: results.append(self.daemon.call("probe", b"stderr begun; sleep 20")))
        caller.start()
        wait_until(lambda: "begun" in self.daemon.cli_ok("logs", "probe"), 30, "the call runs")
        os.kill(self.daemon.launcher_pid(), signal.SIGKILL)
        caller.join(60)
        self.assertEqual(len(results), 1)
        self.assertEqual(results[0].status, 503)
        # Its spawner dies with it, and may be heard of first.
        self.assertIn(results[0].outcome,
                      ("setup-failed:launcher-lost", "setup-failed:spawner-lost"))
        self.assertIn("may have run", results[0].text)
        wait_until(self.works, 60, "functions come back")

    def test_a_killed_spawner_ends_only_its_version(self):
        self.assertTrue(self.works())
        launcher = self.daemon.launcher_pid()
        children = [p for p in leaks.descendants(launcher)
                    if leaks.status_of(p).get("PPid") == str(launcher)]
        self.assertTrue(children)
        os.kill(children[0], signal.SIGKILL)
        wait_until(self.works, 60, "both functions work")
        self.assertEqual(self.daemon.launcher_pid(), launcher)

    def test_a_hung_launcher_keeps_no_deploy_or_import_waiting(self):
        self.assertTrue(self.works())
        launcher = self.daemon.launcher_pid()
        replies = {}

        def deploy():
            replies["deploy"] = self.daemon.api(
                "PUT", "/v1/functions/late", {"image": "probe:1", "mode": "exec"}, timeout=120)

        def load():
            replies["import"] = self.daemon.request(
                "POST", "/v1/images", (IMAGES / "echo.tar").read_bytes(), timeout=120, admin=True)

        callers = [threading.Thread(target=ask) for ask in (deploy, load)]
        os.kill(launcher, signal.SIGSTOP)
        try:
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join(120)
            self.assertEqual(replies["deploy"].status, 504, replies["deploy"])
            self.assertEqual(replies["deploy"].json()["error"]["code"], "timeout")
            self.assertEqual(replies["import"].status, 503, replies["import"])
            for reply in replies.values():
                self.assertIn("the launcher did not answer", reply.text)
        finally:
            os.kill(launcher, signal.SIGCONT)
        wait_until(self.works, 60, "functions work")
        self.daemon.import_sample("echo")
        self.daemon.put("late", {"image": "probe:1", "mode": "exec"})
        self.assertEqual(self.daemon.call("late", b"say hi").text, "hi\n")
        self.daemon.api("DELETE", "/v1/functions/late")
        self.assertEqual(self.daemon.launcher_pid(), launcher)

    def test_a_killed_daemon_comes_back_with_its_functions(self):
        self.assertTrue(self.works())
        daemon = self.daemon.daemon_pid()
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: not is_alive(daemon), 60, "the daemon is dead")
        wait_until(self.works, 60, "functions come back")
        names = [f["name"] for f in self.daemon.api("GET", "/v1/functions").json()["functions"]]
        self.assertEqual(sorted(names), ["probe", "web"])

    def test_hup_reloads_and_serves_on(self):
        daemon = self.daemon.daemon_pid()
        os.kill(daemon, signal.SIGHUP)
        wait_until(lambda: "reload" in self.daemon.log().lower(), 60, "the log says reloaded")
        self.assertEqual(self.daemon.daemon_pid(), daemon)
        before = self.daemon.log().lower().count("reload")
        self.daemon.process.send_signal(signal.SIGHUP)  # the keeper passes it on
        wait_until(lambda: self.daemon.log().lower().count("reload") > before, 20, "once more")
        self.assertTrue(self.works())
        self.assertEqual(self.daemon.daemon_pid(), daemon)

    def test_stray_signals_change_nothing(self):
        daemon = self.daemon.daemon_pid()
        for signo in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP):
            for _ in range(20):
                os.kill(daemon, signo)
        self.assertTrue(self.works())
        self.assertEqual(self.daemon.daemon_pid(), daemon)


def works(daemon):
    try:
        return daemon.call("probe", b"say hi").text == "hi\n"
    except (OSError, http.client.HTTPException):
        return False


def read_to_end(connection):
    received = b""
    with connection:
        while block := connection.recv(65536):
            received += block
    return received


class Ends(unittest.TestCase):
    """Each case has its own daemon, because it ends it."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")

    def ready(self, *flags):
        daemon = Daemon(*flags)
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
            wait_until(lambda: not leaks.nothing_left(daemon), 60, "everything is gone")
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
        wait_until(lambda: daemon.open_calls("probe") == 4 and daemon.queued("probe") == 8, 30,
                   "four run and eight wait")
        self.assertEqual(daemon.stop(), 0)
        caller.join(60)
        self.assertEqual(len(replies), 12, "a call got no answer")
        for reply in replies:
            self.assertIn(reply.status, (200, 429, 503), repr(reply))
        self.assertTrue(any(r.text == "done\n" for r in replies), "running calls may finish")
        self.assert_nothing_left(daemon)

    def test_a_call_killed_by_a_stop_is_told_from_one_that_never_began(self):
        daemon = self.ready("--stop-timeout", "2s")
        daemon.put("one", {"image": "probe:1", "mode": "exec",
                           "scale": {"max": 1, "queue_wait": "60s"}})
        running = [self.ask(daemon, b"GET /function/one/sleep/50 HTTP/1.1"),
                   self.ask(daemon, b"GET /function/web/sleep/50000 HTTP/1.1")]
        wait_until(lambda: daemon.open_calls("one") == daemon.open_calls("web") == 1, 30,
                   "both run")
        queued = self.ask(daemon, b"GET /function/one/say/hi HTTP/1.1")
        wait_until(lambda: daemon.queued("one") == 1, 30, "one waits")
        daemon.process.send_signal(signal.SIGTERM)
        for connection in running:
            reply = read_to_end(connection)
            self.assertTrue(reply.startswith(b"HTTP/1.1 500 "), reply)
            self.assertIn(b"X-Pulga-Outcome: signaled:SIGKILL\r\n", reply)
            self.assertIn(b"it may have run", reply)
            self.assertNotIn(b"Retry-After", reply)
        reply = read_to_end(queued)
        self.assertTrue(reply.startswith(b"HTTP/1.1 503 "), reply)
        self.assertIn(b"X-Pulga-Outcome: rejected:shutting-down\r\n", reply)
        self.assertIn(b"Retry-After", reply)
        self.assertEqual(daemon.process.wait(60), 0)
        self.assert_nothing_left(daemon)

    def test_term_under_load_of_http_calls_gives_every_request_a_status(self):
        """Replies that stream, uploads half sent, and calls that wait for an instance."""
        daemon = self.ready("--stop-timeout", "10s")
        daemon.put("narrow", {"image": "http-hello:1", "mode": "http",
                              "scale": {"max": 1, "concurrency": 1, "queue_wait": "60s"}})
        streaming = [self.ask(daemon, b"GET /function/web/drip/40/50 HTTP/1.1") for _ in range(4)]
        for connection in streaming:
            self.assertIn(b" 200 ", connection.recv(4096))
        head = b"POST /function/web/echo HTTP/1.1\r\nContent-Length: 200000"
        uploading = [self.ask(daemon, head, b"u" * 50000) for _ in range(4)]
        busy = self.ask(daemon, b"GET /function/narrow/sleep/2000 HTTP/1.1")
        wait_until(lambda: daemon.open_calls("narrow") == 1, 30, "it runs")
        queued = [self.ask(daemon, b"GET /function/narrow/ HTTP/1.1") for _ in range(6)]
        wait_until(lambda: daemon.queued("narrow") == 6, 30, "six wait")
        wait_until(lambda: daemon.open_calls("web") == 8, 30, "four stream, four upload")
        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.is_stopping(daemon), 20, "it takes no new connection")
        for connection in uploading[:2]:  # these go on, the other two never do
            connection.sendall(b"u" * 150000)
        replies = [read_to_end(connection) for connection in [*uploading, busy, *queued]]
        for reply in replies:
            self.assertRegex(reply[:40], rb"^HTTP/1\.1 (200|408|429|499|500|503) ", reply[:300])
        for reply in replies[:2]:  # what was under way may end
            self.assertTrue(reply.startswith(b"HTTP/1.1 200 ") and reply.endswith(b"u" * 1000))
        for connection in streaming:
            end = read_to_end(connection)[-200:]
            self.assertIn(b"\r\n0\r\nX-Pulga-Outcome: ok\r\n", end)
        self.assertEqual(daemon.process.wait(60), 0)
        self.assert_nothing_left(daemon)

    @staticmethod
    def ask(daemon, head, body=b""):
        connection = daemon.connect()
        connection.sendall(head + b"\r\nHost: x\r\nConnection: close\r\n\r\n" + body)
        return connection

    @staticmethod
    def is_stopping(daemon):
        try:
            daemon.connect(timeout=2).close()
        except ConnectionRefusedError:
            return True
        except OSError:  # it still listens, and accepts nobody
            pass
        return False

    def test_a_killed_keeper_takes_everything_with_it(self):
        daemon = self.ready()
        pids = list(daemon.processes())
        daemon.process.kill()
        daemon.process.wait()
        wait_until(lambda: not any(is_alive(p) for p in pids), 60, "every process is gone")
        daemon.start()  # the next start sweeps what the dead one could not
        self.assertEqual(daemon.call("probe", b"say hi").status, 200)
        daemon.stop()
        self.assert_nothing_left(daemon)

    def test_all_three_killed_at_once_leave_only_cgroups_and_the_next_start_sweeps_them(self):
        daemon = self.ready()
        pids = list(daemon.processes())
        three = (daemon.process.pid, daemon.launcher_pid(), daemon.daemon_pid())
        for signo in (signal.SIGSTOP, signal.SIGKILL):  # stopped, none sees another's death
            for pid in three:
                os.kill(pid, signo)
        daemon.process.wait()
        wait_until(lambda: not any(is_alive(p) for p in pids), 60, "every process is gone")
        self.assertEqual([line for line in leaks.nothing_left(daemon) if "cgroup" not in line], [])
        self.assertTrue(self.version_cgroups(daemon), "nobody was there to remove them")
        daemon.start()
        wait_until(lambda: not self.version_cgroups(daemon), 60, "the sweep")
        self.assertEqual(daemon.call("probe", b"say hi").status, 200)
        daemon.stop()
        self.assert_nothing_left(daemon)

    def version_cgroups(self, daemon):
        return [path for path in leaks.cgroups_of(daemon.data) if re.search(r"/v\d+", path)]

    def test_a_crash_loop_backs_off(self):
        for who, current in (("launcher", Daemon.launcher_now), ("daemon", Daemon.daemon_now)):
            with self.subTest(who):
                daemon = self.ready()
                self.kill_until_it_waits(daemon, who, current)
                wait_until(lambda: works(daemon), 60, "it recovers")
                daemon.stop()
                self.assert_nothing_left(daemon)

    def kill_until_it_waits(self, daemon, who, current):
        """Kills each one that is started; the log tells growing delays, and they are kept."""
        killed, started = set(), time.monotonic()
        said = re.compile(f"the {who} ended, .*: starting .* (at once|in (\\d+) ms)")
        while len(said.findall(daemon.log())) < 4:
            self.assertLess(time.monotonic() - started, 60, daemon.log())
            pid = current(daemon)
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.01)
        delays = [int(ms or 0) for _, ms in said.findall(daemon.log())]
        self.assertEqual(delays[:4], [0, 100, 200, 400])
        self.assertGreaterEqual(time.monotonic() - started, 0.3, "it did not wait so long")

    def test_everything_dead_at_once_comes_back(self):
        daemon = self.ready()
        for pid in (daemon.daemon_pid(), daemon.launcher_pid()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: works(daemon), 60, "the daemon comes back, and functions too")


if __name__ == "__main__":
    unittest.main()
