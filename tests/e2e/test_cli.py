"""The command line: output for people and for programs, exit statuses, `pulga run`, `doctor`."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest
from pathlib import Path

from harness import (Case, IMAGES, PULGA, command_line, descendants, image_archive, image_of,
                     is_alive, probe_binary, wait_until)
from test_tus import CuttingProxy, archive_of

COMMANDS = ("serve", "doctor", "image", "deploy", "invoke", "ls", "describe", "logs", "rm", "run",
            "scale", "rollback", "pull", "policy replay", "export")
LATER = ("top", "events")


class Commands(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.cli_ok("image", "import", str(IMAGES / "probe.tar"))
        cls.daemon.cli_ok("image", "import", str(IMAGES / "http-hello.tar"))
        cls.daemon.cli_ok("deploy", "probe", "--image", "probe:1", "--mode", "exec")

    def test_every_command_has_help(self):
        for command in COMMANDS:
            done = self.daemon.cli(command, "--help")
            self.assertEqual(done.returncode, 0, command)
            self.assertIn(command.encode(), done.stdout)
            self.assertEqual(done.stderr, b"")

    def test_the_overview_names_what_works_and_nothing_else(self):
        text = self.daemon.cli_ok("--help")
        for command in COMMANDS:
            self.assertIn(command, text)
        words = text.split()
        for command in LATER:
            self.assertNotIn(command, words)
        self.assertNotIn("--async", text)

    def test_wrong_usage_exits_with_two(self):
        for args in ((), ("nonsense",), ("deploy",), ("deploy", "x"), ("invoke",),
                     ("ls", "--no-such-flag"), ("scale", "probe"), ("scale", "probe", "many")):
            done = self.daemon.cli(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertNotEqual(done.stderr, b"", args)

    def test_no_name_of_a_function_reaches_another_path(self):
        for args in (("describe", "probe/logs"), ("rm", "probe", "a/b"), ("describe", ""),
                     ("deploy", "probe/scale", "--image", "probe:1"), ("invoke", "../v1/images"),
                     ("logs", "Probe?x"), ("scale", "probe/..", "1")):
            done = self.daemon.cli(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertIn(b"of a-z, 0-9", done.stderr, args)
        self.assertEqual(self.daemon.cli("describe", "probe").returncode, 0, "none was removed")

    def test_refusal_exits_with_one_and_says_why_on_stderr(self):
        for args, word in ((("describe", "nobody"), "nobody"), (("rm", "nobody"), "nobody"),
                           (("deploy", "x", "--image", "absent:9", "--pull", "never"), "absent:9"),
                           (("image", "inspect", "absent:9"), "absent:9")):
            done = self.daemon.cli(*args)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn(word.encode(), done.stderr)
            self.assertEqual(done.stdout, b"")

    def test_a_failure_with_json_is_the_documented_error(self):
        away = {"PULGA_URL": "http://127.0.0.1:1"}
        for args, env, status, code in (
                (("describe", "nobody"), None, 1, "function_not_found"),
                (("image", "inspect", "absent:9"), None, 1, "image_not_found"),
                (("rm", "nobody"), None, 1, "function_not_found"),
                (("ls",), away, 1, "unavailable"),
                (("ls",), {"PULGA_KEY": "no"}, 1, "unauthorized"),
                (("ls", "--nonsense"), None, 2, "usage"), (("describe",), None, 2, "usage")):
            done = self.daemon.cli(*args, "--json", env=env)
            self.assertEqual(done.returncode, status, args)
            error = json.loads(done.stdout)["error"]
            self.assertEqual((error["code"], error["details"]), (code, {}), args)
            self.assertIn(error["message"].encode(), done.stderr)

    def test_the_demo_runs_the_first_of_several_images(self):
        demo = (Path(__file__).parents[2] / "scripts/demo").read_text()
        function = re.search(r"^import_first\(\) \{.*?^\}", demo, re.M | re.S).group()
        images = [image_of({"app": probe_binary()}, tag, Entrypoint=["/app"])
                  for tag in ("second:1", "first:1")]
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            archive.write(image_archive.docker_archive(images))
            archive.flush()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c",
                 'show() { echo "\$ $*"; "$@"; }\n' + function +
                 '\nimport_first "$1"; echo "$reference"', "demo", archive.name],
                env={"PATH": f"{Path(PULGA).parent}:{os.environ['PATH']}",
                     "PULGA_URL": f"http://127.0.0.1:{self.daemon.port}",
                     "PULGA_KEY": self.daemon.key}, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, b"second:1\n"), done.stderr)

    def test_no_daemon_is_a_clear_error(self):
        done = self.daemon.cli("ls", env={"PULGA_URL": "http://127.0.0.1:1"})
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"127.0.0.1:1", done.stderr)
        self.assertIn(b"pulga serve", done.stderr)

    def test_a_wrong_key_is_refused(self):
        done = self.daemon.cli("ls", env={"PULGA_KEY": "wrong"})
        self.assertEqual(done.returncode, 1)
        for way in (b"PULGA_KEY", b"--key", b"--data"):
            self.assertIn(way, done.stderr)

    def test_lists_are_tables_for_people(self):
        text = self.daemon.cli_ok("ls")
        self.assertIn("probe", text)
        self.assertIn("exec", text)
        images = self.daemon.cli_ok("image", "ls")
        self.assertIn("http-hello:1", images)
        self.assertNotIn("\x1b[", text + images, "no colour when it is not a terminal")

    def test_json_is_json(self):
        listed = json.loads(self.daemon.cli_ok("ls", "--json"))
        self.assertEqual([f["name"] for f in listed["functions"] if f["name"] == "probe"],
                         ["probe"])
        one = json.loads(self.daemon.cli_ok("describe", "probe", "--json"))
        self.assertEqual((one["name"], one["mode"], one["image"]), ("probe", "exec", "probe:1"))
        images = json.loads(self.daemon.cli_ok("image", "ls", "--json"))
        self.assertIn("digest", images["images"][0])
        image = json.loads(self.daemon.cli_ok("image", "inspect", "probe:1", "--json"))
        self.assertEqual(image["config"]["entrypoint"], ["/probe"])
        doctor = json.loads(self.daemon.cli("doctor", "--json").stdout)
        self.assertTrue({"name", "state", "detail", "advice"} <= set(doctor["features"][0]))

    def test_doctor_tells_controller_by_controller(self):
        text = self.daemon.cli("doctor").stdout.decode()
        for word in ("memory", "pids", "cpu", "seccomp", "overlay", "namespace", "freezer"):
            self.assertIn(word, text.lower())

    def test_deploy_prints_the_url_and_the_mode(self):
        text = self.daemon.cli_ok("deploy", "clid", "--image", "http-hello:1", "--memory", "32Mi",
                                  "--cpu", "500m", "--pids", "64", "--timeout", "5s", "--max", "2")
        self.assertIn("/function/clid", text)
        self.assertIn("http", text)
        spec = self.daemon.api("GET", "/v1/functions/clid").json()["spec"]
        self.assertEqual(spec["limits"]["memory"], "32Mi")
        self.assertEqual(spec["limits"]["timeout"], "5s")
        self.assertEqual(spec["scale"]["max"], 2)

    def test_deploy_takes_an_archive_or_a_file(self):
        self.daemon.cli_ok("deploy", "fromtar", "--image", str(IMAGES / "hello.tar"))
        self.assertIn("Hello", self.daemon.cli_ok("invoke", "fromtar"))
        path = self.daemon.temp / "function.json"
        path.write_text(json.dumps({"image": "probe:1", "mode": "exec", "env": {"A": "b"}}))
        self.daemon.cli_ok("deploy", "fromjson", "-f", str(path))
        self.assertIn("A=b", self.daemon.cli_ok("invoke", "fromjson", "-d", "env"))

    def test_invoke_encodes_what_no_request_line_can_hold(self):
        out = self.daemon.cli_ok("invoke", "probe", "-p", "/env/x y\tz%20#?a b")
        self.assertIn("Http_Path=/env/x%20y%09z%20%23\n", out)
        self.assertIn("Http_Query=a%20b\n", out)

    def test_invoke_takes_its_body_three_ways(self):
        self.assertEqual(self.daemon.cli_ok("invoke", "probe", "-d", "say arg"), "arg\n")
        self.assertEqual(self.daemon.cli_ok("invoke", "probe", stdin=b"say stdin"), "stdin\n")
        path = self.daemon.temp / "body"
        path.write_bytes(b"say file")
        self.assertEqual(self.daemon.cli_ok("invoke", "probe", "-d", f"@{path}"), "file\n")
        self.assertIn("Http_X_One=1",
                      self.daemon.cli_ok("invoke", "probe", "-d", "env", "-H", "X-One: 1"))

    def test_an_unknown_function_is_told_once(self):
        done = self.daemon.cli("invoke", "nobody", "-d", "x")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_a_failed_function_makes_invoke_exit_with_one(self):
        done = self.daemon.cli("invoke", "probe", "-d", "stderr oops; exit 3")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"exited:3", done.stdout + done.stderr)

    def test_import_reads_stdin_and_sets_a_reference(self):
        data = (IMAGES / "hello.tar").read_bytes()
        self.daemon.cli_ok("image", "import", "-", "--ref", "other:7", stdin=data)
        self.assertIn("other:7", self.daemon.cli_ok("image", "ls"))
        self.daemon.cli_ok("image", "rm", "other:7")
        self.assertNotIn("other:7", self.daemon.cli_ok("image", "ls"))

    def test_describe_lists_versions_and_rollback_goes_back(self):
        for word in ("one", "two"):
            path = self.daemon.temp / "f.json"
            path.write_text(json.dumps({"image": "probe:1", "mode": "exec", "env": {"W": word}}))
            self.daemon.cli_ok("deploy", "versions", "-f", str(path))
        self.assertIn("2", self.daemon.cli_ok("describe", "versions"))
        self.daemon.cli_ok("rollback", "versions")
        self.assertIn("W=one", self.daemon.cli_ok("invoke", "versions", "-d", "env"))
        self.daemon.cli_ok("rm", "versions")
        self.assertEqual(self.daemon.cli("describe", "versions").returncode, 1)

    def test_logs_follow(self):
        environment = {"PATH": os.environ["PATH"], "PULGA_KEY": self.daemon.key,
                       "PULGA_URL": f"http://127.0.0.1:{self.daemon.port}"}
        with subprocess.Popen([PULGA, "logs", "probe", "-f"], stdout=subprocess.PIPE,
                              env=environment) as follower:
            time.sleep(0.5)
            self.daemon.call("probe", b"stderr followed-line")
            line = b""
            while b"followed-line" not in line:
                line = follower.stdout.readline()
                self.assertNotEqual(line, b"", "the follower ended")
            follower.send_signal(signal.SIGINT)
            follower.wait(10)

    def test_a_key_file_that_can_be_read_needs_no_flag(self):
        done = self.daemon.cli("ls", "--data", str(self.daemon.data), env={"PULGA_KEY": ""})
        self.assertEqual(done.returncode, 0, done.stderr.decode())


class Progress(Case):
    """The bar of an import: on a terminal, and only there."""

    @classmethod
    def prepare(cls):
        cls.file = cls.daemon.temp / "archive.tar"

    def environment(self, proxy):
        return {"PATH": os.environ["PATH"], "PULGA_URL": proxy.url, "TERM": "xterm",
                "PULGA_KEY": self.daemon.key}

    def on_a_terminal(self, columns, tag):
        """(exit status, stdout, what the terminal got) of an import over a slow connection."""
        self.file.write_bytes(archive_of(12, tag))
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with CuttingProxy(self.daemon.port, rate=16 << 20) as proxy:
            with subprocess.Popen([PULGA, "image", "import", str(self.file)], stderr=slave,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  env=self.environment(proxy)) as importing:
                os.close(slave)
                shown = b""
                try:
                    while block := os.read(master, 65536):
                        shown += block
                except OSError:  # EIO: the last writer is gone
                    pass
                out = importing.stdout.read().decode()
        return importing.returncode, out, shown.decode()

    def test_it_appears_moves_and_leaves_nothing_behind(self):
        status, out, shown = self.on_a_terminal(100, "bar:1")
        self.assertEqual(status, 0, shown)
        self.assertIn("imported bar:1", out)
        self.assertNotIn("\x1b[K", out)
        states = shown.split("\r\x1b[K")
        self.assertEqual((states[0], states[-1]), ("", ""), "every line is erased, the last too")
        self.assertGreaterEqual(len(states), 4, shown)
        percents = []
        for state in states[1:-1]:
            match = re.match(r"import archive\.tar  \[(=*>? *)\] +(\d+)%  \S+ \w+ / \S+ MiB",
                             state)
            self.assertIsNotNone(match, state)
            self.assertNotIn("\n", state)
            percents.append(int(match[2]))
            filled = match[1].count("=") / len(match[1])
            self.assertAlmostEqual(filled, percents[-1] / 100, delta=0.06)
        self.assertEqual(percents, sorted(percents))
        self.assertGreater(len(set(percents)), 1, "it moves")

    def test_it_never_wraps_a_narrow_terminal(self):
        status, _, shown = self.on_a_terminal(30, "bar:2")
        self.assertEqual(status, 0, shown)
        states = shown.split("\r\x1b[K")[1:-1]
        self.assertTrue(states)
        self.assertLess(max(map(len, states)), 30)

    def test_it_is_absent_without_a_terminal(self):
        self.file.write_bytes(archive_of(12, "bar:3"))
        with CuttingProxy(self.daemon.port, rate=16 << 20) as proxy:
            done = subprocess.run([PULGA, "image", "import", str(self.file)], capture_output=True,
                                  env=self.environment(proxy), timeout=120, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""), done.stdout)
        self.assertIn(b"imported bar:3", done.stdout)
        self.assertNotIn(b"\x1b", done.stdout)


class Run(Case):
    """`pulga run` needs no daemon; the one of the class only checks that nothing else changed."""

    def run_once(self, *args, stdin=b""):
        return subprocess.run([PULGA, "run", *args], input=stdin, capture_output=True, timeout=60,
                              env={"PATH": os.environ["PATH"]}, check=False)

    def test_prints_what_the_program_prints(self):
        done = self.run_once(str(IMAGES / "hello.tar"), "an-argument")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn(b"Hello", done.stdout)
        self.assertIn(b"argument: an-argument", done.stdout)

    def test_stdin_goes_in(self):
        done = self.run_once(str(IMAGES / "echo.tar"), "upper", stdin=b"flea")
        self.assertEqual(done.stdout, b"FLEA", done.stderr.decode())

    def test_a_failure_is_told(self):
        done = self.run_once(str(IMAGES / "probe.tar"), "exit", "3")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"exited:3", done.stderr)

    def test_a_server_is_run_with_a_word_about_its_port(self):
        done = self.run_once("--timeout", "1s", str(IMAGES / "http-hello.tar"))
        self.assertEqual(done.returncode, 124, done.stderr.decode())
        self.assertIn(b"EXPOSEs 8080, but", done.stderr)
        done = self.run_once(str(IMAGES / "hello.tar"))
        self.assertEqual(done.stderr, b"", "nothing to say")
        self.assertIn("24h", self.daemon.cli_ok("run", "--help"))

    def test_leaves_nothing(self):
        before = set(os.listdir("/tmp"))
        cgroups = self.all_cgroups()
        self.run_once(str(IMAGES / "hello.tar"))
        self.assertEqual({n for n in set(os.listdir("/tmp")) - before if "pulga" in n
                          and not n.startswith("pulga-e2e")}, set())
        time.sleep(0.2)
        self.assertLessEqual(self.all_cgroups() - cgroups, set())

    def start_sleeping_run(self):
        """A run that is under way for a minute, and the processes below it."""
        run = subprocess.Popen([PULGA, "run", str(IMAGES / "probe.tar"), "sleep", "60000"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        wait_until(lambda: "probe" in descendants(run.pid).values(), 20, "the program runs")
        return run, set(descendants(run.pid)) - {run.pid}

    def assert_all_gone(self, pids, cgroups):
        wait_until(lambda: not [p for p in pids if is_alive(p)], 30,
                   lambda: [command_line(p) for p in pids if is_alive(p)])
        wait_until(lambda: self.all_cgroups() <= cgroups, 30, "the cgroups are gone")
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            self.assertNotIn("pulga-run-", mounts.read())

    def test_an_ending_signal_leaves_nothing(self):
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            before, cgroups = set(os.listdir("/tmp")), self.all_cgroups()
            run, pids = self.start_sleeping_run()
            run.send_signal(signo)
            self.assertEqual(run.wait(20), 128 + signo)
            self.assert_all_gone(pids, cgroups)
            self.assertEqual([n for n in set(os.listdir("/tmp")) - before
                              if n.startswith("pulga-run-")], [])

    def test_killing_it_leaves_no_process_and_the_next_one_clears_up(self):
        before, cgroups = self.run_directories(), self.all_cgroups()
        run, pids = self.start_sleeping_run()
        run.kill()
        run.wait()
        self.assert_all_gone(pids, cgroups)
        self.assertNotEqual(self.run_directories() - before, set(), "nobody is there to remove it")
        other, _ = self.start_sleeping_run()
        wait_until(lambda: len(self.run_directories() - before) == 1, 30, "only the live one's")
        done = self.run_once(str(IMAGES / "hello.tar"))
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIsNone(other.poll(), "a live run keeps its directory")
        self.assertEqual(len(self.run_directories() - before), 1)
        other.terminate()
        other.wait(20)
        self.assertEqual(self.run_directories() - before, set())

    def test_options_of_a_deploy_that_mean_nothing_here_are_refused(self):
        for option in ("--pull", "--min", "--max", "--parked", "--port", "--queue"):
            done = self.run_once(option, "1", str(IMAGES / "hello.tar"))
            self.assertEqual(done.returncode, 2, done.stderr.decode())

    @staticmethod
    def run_directories():
        return {name for name in os.listdir("/tmp") if name.startswith("pulga-run-")}

    @staticmethod
    def all_cgroups():
        import leaks
        found = set()
        for mount in leaks.cgroup_mounts():
            found |= {f"{mount}/{n}" for n in os.listdir(mount) if n.startswith("pulga-")}
        return found

    def test_what_is_no_archive_is_refused(self):
        done = self.run_once(__file__)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"archive", done.stderr)


if __name__ == "__main__":
    unittest.main()
