"""How ready functions are kept, as a user sees it: habits, measured costs, reasons."""

import json
import os
import signal
import sqlite3
import threading
import time
import unittest
from pathlib import Path

import leaks
from harness import Case, OwnDaemonCase, in_parallel, wait_until


class Ladder(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.import_sample("probe")
        cls.daemon.import_sample("http-hello")

    def status(self, name):
        return self.daemon.api("GET", "/v1/functions/" + name).json()


class Habits(Ladder):
    def put(self, name, **scale):
        self.daemon.put(name, {"image": "http-hello:1", "mode": "http", "scale": scale})

    def test_pauses_are_learned_and_outlive_a_version(self):
        self.put("steady", max=1)
        self.assertIn("only 0 idle times", self.status("steady")["keep_alive"])
        for _ in range(6):
            self.assertEqual(self.daemon.call("steady", path="/").status, 200)
            time.sleep(1.1)  # a pause of less than a second teaches nothing
        self.put("steady", max=2)
        kept = self.status("steady")["keep_alive"]
        self.assertEqual(kept, "warm for 2m after a call: 5 idle times of its own say so")
        self.assertIn(kept, self.daemon.cli_ok("describe", "steady"))

    def test_a_time_that_was_set_is_kept_to(self):
        self.put("fixed", idle="7m")
        self.assertEqual(self.status("fixed")["keep_alive"], "warm for 7m after a call: by setting")

    def test_costs_are_measured_and_told(self):
        self.put("costly", max=1, freeze_after="0")
        self.assertEqual(self.status("costly")["costs"]["cold"]["starts"], 0)
        self.assertEqual(self.daemon.call("costly", path="/").status, 200)
        for thaws in range(1, 30):  # one may have met a busy machine
            wait_until(lambda: self.status("costly")["instances"][0]["step"] == "frozen", 30,
                       "frozen")
            self.assertEqual(self.daemon.call("costly", path="/").status, 200)
            costs = self.status("costly")["costs"]
            self.assertEqual((costs["cold"]["starts"], costs["frozen"]["starts"]), (1, thaws))
            if costs["cold"]["start_ms"] > costs["frozen"]["start_ms"]:
                break
        else:
            self.fail(f"a thaw is said to cost more than a start: {costs}")
        self.assertGreater(costs["frozen"]["memory_observations"], 0)
        self.assertLess(costs["frozen"]["memory_bytes"], costs["warm"]["memory_bytes"])
        self.assertIn("frozen", self.daemon.cli_ok("describe", "costly"))

    def test_decisions_are_told_with_their_reasons(self):
        self.put("told", max=1, freeze_after="0")
        self.assertEqual(self.daemon.call("told", path="/").status, 200)
        wait_until(lambda: self.status("told")["instances"][0]["step"] == "frozen", 30, "frozen")
        texts = [d["text"] for d in self.status("told")["decisions"]]
        self.assertIn("starts an instance: 1 call waiting, 0 of 1 instances live", texts)
        self.assertEqual(texts[-1], "freezes an instance: idle for 0s")

    def test_a_sandbox_stays_parked_for_longer_than_a_server_would(self):
        self.daemon.put("sand", {"image": "probe:1", "mode": "exec"})
        self.assertEqual(self.status("sand")["keep_alive"], "parked for 30m after a call")
        self.assertEqual(self.daemon.call("sand", b"exit 0").status, 200)
        wait_until(lambda: self.status("sand")["costs"]["parked"]["memory_observations"] > 0, 30,
                   "its memory is known")


class Restart(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.import_sample("http-hello")
        self.daemon.put("kept", {"image": "http-hello:1", "mode": "http", "scale": {"max": 1}})

    def status(self):
        return self.daemon.api("GET", "/v1/functions/kept").json()

    def change(self, *statements):
        with sqlite3.connect(self.daemon.data / "pulga.db") as database:
            for statement in statements:
                database.execute(*statement)
        database.close()

    def test_what_was_learned_is_there_after_a_restart(self):
        for _ in range(6):
            self.assertEqual(self.daemon.call("kept", path="/").status, 200)
            time.sleep(1.1)
        before = self.status()
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        after = self.status()
        self.assertEqual(after["keep_alive"], before["keep_alive"])
        self.assertIn("5 idle times of its own say so", after["keep_alive"])
        self.assertEqual(after["costs"]["cold"], before["costs"]["cold"])

    def test_a_server_is_ready_when_its_habit_says_so_though_nobody_called_since(self):
        self.assertEqual(self.daemon.call("kept", path="/").status, 200)
        self.assertEqual(self.daemon.stop(), 0)
        # Every two minutes, and the last time half a minute ago: due from the first minute on.
        self.change(("UPDATE habits SET pauses = '0;2*20', idle_since_unix_ms = ?",
                     (int(time.time() * 1000) - 30_000,)))
        self.daemon.start()
        self.assertEqual(self.status()["instances"], [])
        wait_until(lambda: self.status()["instances"], 60, "it is brought up ahead of a call")
        texts = [d["text"] for d in self.status()["decisions"]]
        self.assertIn("starts an instance: a call is expected; warm from 1m to 4m after a call: "
                      "20 idle times of its own say so", texts)

    def test_a_damaged_row_costs_the_habit_and_nothing_else(self):
        self.assertEqual(self.daemon.call("kept", path="/").status, 200)
        self.assertEqual(self.daemon.stop(), 0)
        self.change(("UPDATE habits SET pauses = 'x'",), ("UPDATE call_hours SET minutes = 'y'",))
        self.daemon.start()
        self.assertIn("what was learned about function kept is damaged", self.daemon.log())
        self.assertEqual(self.status()["costs"]["cold"]["starts"], 0)
        self.assertEqual(self.daemon.call("kept", path="/").status, 200)


    def test_recorded_calls_are_replayed_also_after_a_crash(self):
        self.assertIn(b"no call was recorded yet",
                      self.daemon.cli("policy", "replay", "--history").stderr)
        for _ in range(3):
            self.assertEqual(self.daemon.call("kept", path="/").status, 200)
        before = self.daemon.api("GET", "/v1/history")
        self.assertEqual(before.status, 200, repr(before))
        lines = before.text.splitlines()
        self.assertEqual(lines[0], "function,trigger,bytes,init_ms,hour,minutes")
        self.assertRegex(lines[1], r"^openfaas-fn/kept,caller,[0-9]+,[0-9]+,[0-9]{6},[0-9]+\*[123]")
        killed = self.daemon.daemon_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.daemon.daemon_pid() not in (killed, None) and
                   self.daemon.healthy(), 60, "the keeper has started it anew")
        self.assertEqual(self.daemon.api("GET", "/v1/history").text, before.text)
        told = json.loads(self.daemon.cli_ok("policy", "replay", "--history", "--json"))
        self.assertEqual(told["functions"], 1)
        self.assertIn("ladder, zram", {row["policy"] for row in told["policies"]})
        self.assertEqual({row["starts"]["cold"] for row in told["policies"]}, {1})
        self.replay_of_the_stopped(before.text)
        self.daemon.api("DELETE", "/v1/functions/kept")
        self.assertEqual(len(self.daemon.api("GET", "/v1/history").text.splitlines()), 1)

    def replay_of_the_stopped(self, history):
        data = ("policy", "replay", "--history", "--data", str(self.daemon.data), "--json")
        told = self.daemon.cli_ok("policy", "replay", "--history", "--json")
        running = self.daemon.cli(*data)
        self.assertEqual(running.returncode, 1)
        self.assertIn(b"a pulga daemon is using", running.stderr)
        self.assertEqual(self.daemon.stop(), 0)
        files = lambda: {path.name: path.stat() for path in self.daemon.data.iterdir()}
        before = files()
        self.assertEqual(self.daemon.cli_ok(*data), told)
        self.assertEqual({name: (st.st_mtime_ns, st.st_uid) for name, st in files().items()},
                         {name: (st.st_mtime_ns, st.st_uid) for name, st in before.items()})
        self.daemon.start()
        self.assertEqual(self.daemon.api("GET", "/v1/history").text, history)


class Load(Ladder):
    flags = ("--memory-budget", "100Mi")

    def put(self, name, memory, **scale):
        self.daemon.put(name, {"image": "http-hello:1", "mode": "http",
                               "limits": {"memory": memory}, "scale": scale})

    def test_an_idle_server_is_frozen_for_another_function(self):
        self.put("one", "64Mi", max=1, freeze_after="1h")
        self.put("two", "64Mi", max=1, freeze_after="1h")
        for name in ("one", "two"):
            self.assertEqual(self.daemon.call(name, path="/").status, 200)
        told = self.status("one")
        self.assertEqual(told["instances"][0]["step"], "frozen", told)
        self.assertEqual(told["last_decision"],
                         "freezes an instance: another function needs the memory")
        reply = self.daemon.call("one", path="/")
        self.assertEqual((reply.status, reply.headers["x-pulga-start"]), (200, "frozen"))

    def test_a_call_waits_for_memory_and_is_served(self):
        self.put("slow", "64Mi", max=1)
        self.put("next", "64Mi", max=1)
        replies = in_parallel(2, lambda n: self.daemon.call(("slow", "next")[n], path="/sleep/700"))
        self.assertEqual({r.status for r in replies}, {200}, repr(replies))

    def test_what_can_never_fit_is_refused_at_once_and_says_why(self):
        self.put("kept", "64Mi", max=1, min=1)
        self.put("second", "64Mi", max=1)
        reply = self.daemon.call("second", path="/")
        self.daemon.api("DELETE", "/v1/functions/kept")
        self.assert_outcome(reply, 503, "rejected:memory")
        self.assertIn("scale.min of others keeps the rest", reply.text)

    def test_servers_are_added_before_calls_wait_and_never_past_the_maximum(self):
        self.put("wide", "16Mi", max=3, concurrency=100, target=1)
        reached = []

        def call(n):
            if n < 6:
                return self.daemon.call("wide", path="/sleep/15000").status
            for _ in range(140):
                reached.append(len(self.status("wide")["instances"]))
                time.sleep(0.1)
            return 200

        self.assertEqual(set(in_parallel(7, call)), {200})
        self.assertEqual(max(reached), 3, reached)
        texts = [d["text"] for d in self.status("wide")["decisions"]]
        self.assertTrue(any("instances: " in t and t.startswith("starts an instance: from ")
                            for t in texts), texts)

    def load_until_it_grows(self, name, path, why):
        """Four callers, until a decision says `why` and a second server is there."""
        done = threading.Event()

        def grown():
            told = self.status(name)
            return (len(told["instances"]) > 1 and
                    any("starts an instance: " in d["text"] and why in d["text"]
                        for d in told["decisions"]))

        def call(n):
            if n == 4:
                try:
                    wait_until(grown, 240, "a second server because " + why)
                finally:
                    done.set()
                return 200
            status = 200
            while not done.is_set() and status == 200:
                status = self.daemon.call(name, path=path).status
            return status

        self.assertEqual(set(in_parallel(5, call)), {200})
        self.assertLessEqual(len(self.status(name)["instances"]), 2)

    def test_servers_are_added_when_they_use_their_processors_up(self):
        self.daemon.put("burns", {"image": "http-hello:1", "mode": "http",
                                  "limits": {"memory": "16Mi", "cpu": "50m"},
                                  "scale": {"max": 2, "cpu_target": "auto"}})
        self.assertEqual(self.status("burns")["spec"]["scale"]["cpu_target"], 80)
        self.load_until_it_grows("burns", "/cpu/200", "they use more of their processors")

    def test_servers_are_added_when_many_calls_come_per_second(self):
        self.daemon.put("rates", {"image": "http-hello:1", "mode": "http",
                                  "limits": {"memory": "16Mi"},
                                  "scale": {"max": 2, "rps_target": 1}})
        # One call per second would do for each of two; calls at once are far from 100.
        self.load_until_it_grows("rates", "/", "scale.max allows no more")
        # Nobody calls: with the minute's average the second one goes, too.
        wait_until(lambda: len(self.status("rates")["instances"]) < 2, 240, "fewer are enough")

    def test_servers_are_added_when_answers_take_too_long(self):
        self.daemon.put("slows", {"image": "http-hello:1", "mode": "http",
                                  "limits": {"memory": "16Mi", "cpu": "0"},
                                  "scale": {"max": 2, "latency_target": "10ms",
                                            "latency_percentile": 90}})
        self.load_until_it_grows("slows", "/cpu/20", "answers take longer than they should")

    def test_targets_that_cannot_be_are_refused_by_name(self):
        for scale, cpu, message in (
                ({"rps_target": 0}, "1", "scale.rps_target: 0 is not between 1 and 1000000"),
                ({"cpu_target": 0}, "1", "scale.cpu_target: 0 is not between 1 and 100"),
                ({"cpu_target": "80%"}, "1", "scale.cpu_target: percent of limits.cpu"),
                ({"cpu_target": 80}, "0", "scale.cpu_target: there is no limits.cpu"),
                ({"latency_target": "0"}, "1", "scale.latency_target: 0 is no time"),
                ({"latency_target": "2h"}, "1", "scale.latency_target: 2h is not between"),
                ({"latency_percentile": 100}, "1",
                 "scale.latency_percentile: 100 is not between 1 and 99")):
            reply = self.daemon.api("PUT", "/v1/functions/bad", {
                "image": "http-hello:1", "mode": "http", "limits": {"cpu": cpu}, "scale": scale})
            self.assert_error(reply, 400, "invalid_spec", message)
        for scale in ({"rps_target": 5}, {"cpu_target": 80}, {"latency_target": "1s"}):
            reply = self.daemon.api("PUT", "/v1/functions/bad", {
                "image": "probe:1", "mode": "exec", "scale": scale})
            self.assert_error(reply, 400, "invalid_argument",
                              "scale.%s: an exec function has" % list(scale)[0])

    def test_a_label_of_openfaas_is_our_own_setting(self):
        scale = "com.openfaas.scale."
        reply = self.daemon.api("PUT", "/v1/functions/labelled", {
            "image": "http-hello:1", "mode": "http", "limits": {"memory": "16Mi"},
            "labels": {scale + "max": "3", scale + "zero": "true", scale + "zero-duration": "7m",
                       scale + "type": "capacity", scale + "target": "10"},
            "annotations": {scale + "min": "1"}})
        self.assertIn(reply.status, (200, 201), reply.text)
        self.assertIn("annotations.com.openfaas.scale.min: has no effect there", reply.text)
        spec = self.status("labelled")["spec"]
        self.assertEqual([spec["scale"][key] for key in ("min", "max", "idle", "target")],
                         [0, 3, "7m", 9])
        self.assertEqual(spec["labels"][scale + "max"], "3")
        reply = self.daemon.api("PUT", "/v1/functions/labelled", {
            "image": "http-hello:1", "labels": {scale + "max": "lots"}})
        self.assert_error(reply, 400, "invalid_argument",
                          'labels.com.openfaas.scale.max: "lots" is no whole number between 1')

    def test_a_target_above_the_concurrency_is_refused_by_name(self):
        reply = self.daemon.api("PUT", "/v1/functions/bad", {
            "image": "http-hello:1", "mode": "http", "scale": {"concurrency": 5, "target": 6}})
        self.assert_error(reply, 400, "invalid_spec", "scale.target: 6 is more than")


class Sizes(Ladder):
    """limits.memory and limits.cpu as ranges: told, and in the cgroups that are there."""

    def in_cgroups(self, *names):
        """What the cgroups of this daemon's slots say in a file of one of these names."""
        files = [Path(cgroup) / name for cgroup in leaks.cgroups_of(self.daemon.data)
                 for name in names if "/slot-" in cgroup]
        return {path.read_text().split()[0] for path in files if path.exists()}

    def memory_limits(self):
        return self.in_cgroups("memory.limit_in_bytes", "memory.max")

    def wait_for(self, name, text, **now):
        """A decision, and that it is in force."""
        def told():
            status = self.status(name)
            return (any(text in d["text"] for d in status["decisions"]) and
                    all(status["limits_now"][key] == value for key, value in now.items()))
        wait_until(told, 60, lambda: f"no decision: {text}, {now}; there is {self.status(name)}")

    def test_a_program_that_ran_out_of_memory_gets_more_the_next_time(self):
        self.daemon.deploy_probe("grows", limits={"memory": {"min": "9Mi", "max": "64Mi"}})
        told = self.status("grows")
        self.assertEqual(told["spec"]["limits"]["memory"], {"min": "9Mi", "max": "64Mi"})
        self.assertIn(str(9 << 20), self.memory_limits())
        reply = self.daemon.call("grows", b"oom 12")
        self.assert_outcome(reply, 500, "oom-killed")
        self.assertIn("limit 9.0 MiB", reply.text)
        self.wait_for("grows", "raises limits.memory from 9Mi to 18Mi: something was killed",
                      memory="18Mi")
        self.assertIn(str(18 << 20), self.memory_limits())
        self.assertNotIn(str(9 << 20), self.memory_limits())
        self.assertEqual(self.daemon.call("grows", b"oom 12").status, 200)
        self.assertIn("raises limits.memory", self.daemon.cli_ok("logs", "grows"))

    def test_a_server_close_to_its_limit_gets_more_while_it_runs(self):
        self.daemon.put("swells", {
            "image": "http-hello:1", "mode": "http", "scale": {"max": 1, "freeze_after": "never"},
            "limits": {"memory": {"min": "33Mi", "max": "64Mi"}}})
        self.assertEqual(self.daemon.call("swells", path="/alloc/30").status, 200)
        before = self.status("swells")["instances"][0]
        self.wait_for("swells", "raises limits.memory from 33Mi to 50Mi: it was at its limit",
                      memory="50Mi")
        self.assertIn(str(50 << 20), self.memory_limits())
        self.assertEqual(self.daemon.call("swells", path="/alloc/12").status, 200)
        after = self.status("swells")["instances"][0]
        self.assertGreater(after["memory_bytes"], 40 << 20, "it is the same one, and has more")
        self.assertGreaterEqual(after["age_ms"], before["age_ms"])

    def test_a_server_held_up_by_its_quota_gets_more(self):
        self.daemon.put("spins", {
            "image": "http-hello:1", "mode": "http", "scale": {"max": 1},
            "limits": {"memory": "16Mi", "cpu": {"min": "50m", "max": "400m"}}})
        done = threading.Event()

        def call(n):
            if n == 1:
                try:
                    self.wait_for("spins", "raises limits.cpu from 50m to 80m: it was at its limit")
                finally:
                    done.set()
                return 200
            status = 200
            while not done.is_set() and status == 200:
                status = self.daemon.call("spins", path="/cpu/50").status
            return status

        self.assertEqual(set(in_parallel(2, call)), {200})
        wait_until(lambda: self.status("spins")["limits_now"]["cpu"] != "50m", 30, "it is in force")
        now = int(self.status("spins")["limits_now"]["cpu"].removesuffix("m"))
        self.assertIn(str(now * 100), self.in_cgroups("cpu.cfs_quota_us", "cpu.max"))

    def test_a_new_range_is_kept_to_and_so_is_the_one_before_it(self):
        def put(least, most):
            self.daemon.deploy_probe("ranged", limits={"memory": {"min": least, "max": most}})
            return self.status("ranged")["limits_now"]["memory"]

        self.assertEqual(put("10Mi", "64Mi"), "10Mi")
        self.assert_outcome(self.daemon.call("ranged", b"oom 14"), 500, "oom-killed")
        self.wait_for("ranged", "raises limits.memory from 10Mi to 20Mi", memory="20Mi")
        self.assertEqual(put("10Mi", "63Mi"), "20Mi", "what was learned holds for the next one")
        self.assertEqual(put("40Mi", "60Mi"), "40Mi")
        self.assertEqual(put("10Mi", "12Mi"), "12Mi")
        for _ in range(3):
            reply = self.daemon.call("ranged", b"oom 14")
            self.assert_outcome(reply, 500, "oom-killed")
            self.assertIn("limit 12.0 MiB", reply.text)
        self.wait_for("ranged", "limits.memory is not raised: more is needed, but that is the most")
        self.daemon.cli_ok("rollback", "ranged")
        now = self.status("ranged")
        self.assertEqual(now["spec"]["limits"]["memory"], {"min": "40Mi", "max": "60Mi"})
        self.assertEqual(now["limits_now"]["memory"], "40Mi")
        self.assertEqual(self.daemon.call("ranged", b"oom 14").status, 200)

    def test_a_range_that_is_none_is_refused_by_name(self):
        for limits, message in (
                ({"memory": {"min": "64Mi", "max": "32Mi"}}, "limits.memory.min: 64Mi is not"),
                ({"memory": {"min": "64Mi"}}, "limits.memory: a range has"),
                ({"memory": {"min": 0, "max": "64Mi"}}, "limits.memory.min: 0 is no lower end"),
                ({"memory": {"min": "1Ki", "max": "64Mi"}}, "limits.memory.min: 1Ki is not"),
                ({"memory": {"min": "1Mi", "max": "16Ei"}}, "limits.memory.max:"),
                ({"memory": {"min": -1, "max": "64Mi"}}, "limits.memory.min:"),
                ({"memory": {"min": {}, "max": "64Mi"}}, "limits.memory.min:"),
                ({"memory": {"min": "9Mi", "max": "64Mi", "is": 1}}, "limits.memory.is"),
                ({"memory": ["9Mi", "64Mi"]}, "limits.memory"),
                ({"cpu": {"min": "1m", "max": "1"}}, "limits.cpu.min:"),
                ({"cpu": {"min": "0", "max": "1"}}, "limits.cpu.min: 0 is no lower end"),
                ({"cpu": {"min": "100m", "max": "0"}}, "limits.cpu.min:")):
            reply = self.daemon.api("PUT", "/v1/functions/bad",
                                    {"image": "probe:1", "limits": limits})
            self.assertEqual(reply.status, 400, f"{limits}: {reply.text}")
            self.assertIn(message, reply.text)


if __name__ == "__main__":
    unittest.main()
