"""Asynchronous calls: taken with 202 once they are on disk, run later, asked about, cancelled."""

import http.client
import os
import re
import signal
import unittest

from harness import Case, OwnDaemonCase, in_parallel, wait_until


def submit(daemon, name, body=b"", headers=None, path=""):
    return daemon.request("POST", f"/async-function/{name}{path}", body, headers)


def task_of(daemon, task_id):
    reply = daemon.api("GET", "/v1/tasks/" + task_id)
    return reply.json() if reply.status == 200 else None


def ended(daemon, task_id, seconds=60):
    def look():
        task = task_of(daemon, task_id)
        return task if task and task["state"] not in ("queued", "running") else None
    return wait_until(look, seconds, f"task {task_id} has ended")


class Answers(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.import_sample("echo")
        cls.daemon.put("echo", {"image": "echo:1", "mode": "exec"})
        cls.daemon.deploy_probe()
        cls.daemon.put("env", {"image": "probe:1", "mode": "exec", "args": ["env"]})
        cls.daemon.deploy_http()

    def test_taken_run_and_asked_about(self):
        reply = submit(self.daemon, "echo", b"hello")
        self.assertEqual((reply.status, reply.body), (202, b""))
        self.assertIn("x-served-by", reply.headers)
        self.assertGreater(int(reply.headers["x-start-time"]), 10 ** 18)
        task = ended(self.daemon, reply.headers["x-call-id"])
        self.assertEqual((task["state"], task["status"], task["outcome"], task["attempts"]),
                         ("done", 200, "ok", 1))
        answer = self.daemon.api("GET", f"/v1/tasks/{task['id']}/result")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        self.assertEqual(answer.headers["x-function-status"], "200")

    def test_the_function_sees_the_call_as_it_was_sent(self):
        reply = submit(self.daemon, "env.openfaas-fn", [b"chun", b"ked"],
                       {"X-Call-Id": "mine-1", "X-Thing": "seven"}, "/some/path?a=1")
        self.assertEqual(reply.headers["x-call-id"], "mine-1")
        ended(self.daemon, "mine-1")
        answer = self.daemon.api("GET", "/v1/tasks/mine-1/result")
        seen = dict(line.partition("=")[::2] for line in answer.text.splitlines())
        self.assertEqual(seen["Http_Method"], "POST")
        self.assertEqual(seen["Http_Path"], "/some/path")
        self.assertEqual(seen["Http_Query"], "a=1")
        self.assertEqual(seen["Http_X_Thing"], "seven")
        self.assertIn(":", seen["Http_X_Forwarded_For"], "of whoever sent it: address and port")
        self.assertEqual(seen["PULGA_CALL_ID"], "mine-1")
        self.assertEqual(seen["Http_X_Call_Id"], "mine-1")

    def test_servers_are_called_too(self):
        reply = submit(self.daemon, "web", b"x")
        self.assertEqual(ended(self.daemon, reply.headers["x-call-id"])["state"], "done")

    def test_servers_see_the_call_id_and_when_they_were_called(self):
        reply = submit(self.daemon, "web", b"x", {"X-Call-Id": "mine-2"}, "/headers")
        self.assertRegex(reply.headers["x-start-time"], r"^\d{19}$", "nanoseconds")
        ended(self.daemon, "mine-2")
        inside = self.daemon.api("GET", "/v1/tasks/mine-2/result").text
        self.assertEqual(inside.count("X-Call-Id: mine-2\r"), 1, inside)
        [called] = re.findall(r"X-Start-Time: (\d{19})\r", inside)
        self.assertGreaterEqual(int(called), int(reply.headers["x-start-time"]))

    def samples(self, name):
        """{metric{labels}: value} of one function's calls."""
        text = self.daemon.request("GET", "/metrics", admin=True).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines()
                 if f'"{name}.openfaas-fn"' in line)
        return {what.replace(f'function_name="{name}.openfaas-fn"', "F"): float(value)
                for what, value in lines}

    def test_they_count_in_the_gateways_metrics_and_in_the_depth_of_the_queue(self):
        self.daemon.put("counted", {"image": "probe:1", "mode": "exec", "scale": {"max": 1}})
        for body in (b"say x", b"exit 1"):
            ended(self.daemon, submit(self.daemon, "counted", body).headers["x-call-id"])
        ids = [submit(self.daemon, "counted", b"sleep 100").headers["x-call-id"] for _ in range(3)]
        wait_until(lambda: self.daemon.open_calls("counted") == 1, 30, "one runs")
        depth = {"queued": 2, "running": 1}
        self.assertEqual(self.daemon.api("GET", "/v1/functions/counted").json()["tasks"], depth)
        self.assertRegex(self.daemon.cli_ok("describe", "counted"), r"tasks +2 queued, 1 running")
        board = self.daemon.api("GET", "/v1/system").json()["tasks"]
        self.assertGreaterEqual((board["queued"], board["running"]), (2, 1))
        samples = self.samples("counted")
        self.assertEqual((samples["pulga_tasks_queued{F}"], samples["pulga_tasks_running{F}"]),
                         (2, 1))
        self.assertEqual(samples["gateway_function_invocation_started{F}"], 3)
        for task_id in reversed(ids):
            self.assertEqual(self.daemon.request("DELETE", "/async-function/" + task_id).status,
                             202)
        samples = self.samples("counted")
        for code, calls in (("200", 1), ("500", 1), ("499", 1)):
            self.assertEqual(
                samples['gateway_function_invocation_total{code="%s",F}' % code], calls, samples)
        self.assertEqual(samples['gateway_functions_seconds_count{code="200",F}'], 1)
        self.assertEqual(samples["gateway_function_invocation_started{F}"], 3, "but one waited")

    def test_failures_are_told_as_they_are(self):
        reply = submit(self.daemon, "probe", b"exit 3")
        task = ended(self.daemon, reply.headers["x-call-id"])
        self.assertEqual((task["state"], task["status"], task["outcome"]),
                         ("failed", 500, "exited:3"))

    def test_what_is_refused(self):
        reply = submit(self.daemon, "absent", b"x")
        self.assertEqual(reply.status, 404)
        self.assertIn("error finding function absent.openfaas-fn", reply.text)
        self.assertEqual(submit(self.daemon, "No_Name").status, 400)
        self.assertEqual(submit(self.daemon, ".openfaas-fn").status, 404, "as a call")
        self.assertEqual(self.daemon.request("GET", "/async-function/echo").status, 405)
        large = submit(self.daemon, "echo", bytes(2 << 20))
        self.assertEqual(large.status, 413)
        self.assertIn("task-message-bytes", large.text)
        for path in ("/v1/tasks/none", "/v1/tasks/none/result"):
            self.assertEqual(self.daemon.api("GET", path).status, 404)
        for query in ("state=odd", "limit=0", "function=No_Name"):
            self.assertEqual(self.daemon.api("GET", "/v1/tasks?" + query).status, 400)
        self.assertEqual(self.daemon.request("GET", "/v1/tasks").status, 401)

    def test_a_running_task_is_cancelled_and_its_program_goes(self):
        reply = submit(self.daemon, "probe", b"sleep 100")
        task_id = reply.headers["x-call-id"]
        wait_until(lambda: self.daemon.open_calls("probe") == 1, 30, "it runs")
        self.assertEqual(self.daemon.api("GET", f"/v1/tasks/{task_id}/result").status, 409)
        self.assertEqual(self.daemon.request("DELETE", "/async-function/" + task_id).status, 202)
        self.assertEqual(task_of(self.daemon, task_id)["state"], "cancelled")
        wait_until(lambda: self.daemon.open_calls("probe") == 0, 30, "its call is over")
        self.assertEqual(self.daemon.request("DELETE", "/async-function/" + task_id).status, 409)

    def test_lists_and_forgets(self):
        ids = [submit(self.daemon, "echo", b"x").headers["x-call-id"] for _ in range(3)]
        for task_id in ids:
            ended(self.daemon, task_id)
        listed = self.daemon.api("GET", "/v1/tasks?function=echo&state=done&limit=2").json()
        self.assertEqual([task["id"] for task in listed["tasks"]], [ids[2], ids[1]])
        self.assertEqual(self.daemon.api("DELETE", "/v1/tasks/" + ids[0]).status, 204)
        self.assertEqual(self.daemon.api("DELETE", "/v1/tasks/" + ids[0]).status, 404)
        self.assertIsNone(task_of(self.daemon, ids[0]))


    def test_from_the_command_line(self):
        task_id = self.daemon.cli_ok("invoke", "echo", "--async", "-d", "hello").strip()
        ended(self.daemon, task_id)
        self.assertEqual(self.daemon.cli_ok("tasks", "result", task_id), "hello")
        self.assertIn(task_id, self.daemon.cli_ok("tasks", "ls", "--function", "echo"))
        self.assertIn("done", self.daemon.cli_ok("tasks", "show", task_id))
        self.daemon.cli_ok("tasks", "rm", task_id)
        self.assertEqual(self.daemon.cli("tasks", "show", task_id).returncode, 1)
        refused = self.daemon.cli("invoke", "absent", "--async", "-d", "x")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"absent", refused.stderr)
        failed = self.daemon.cli_ok("invoke", "probe", "--async", "-d", "exit 3").strip()
        ended(self.daemon, failed)
        self.assertEqual(self.daemon.cli("tasks", "result", failed).returncode, 1)


class Queue(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.deploy_probe(scale={"max": 2})

    def restart(self, signo):
        self.daemon.stop(signo)
        self.daemon.start()

    def test_a_full_queue_says_so(self):
        self.daemon.stop()
        self.daemon.flags += ["--max-tasks", "2", "--tasks-at-once", "1"]
        self.daemon.start()
        for _ in range(2):
            self.assertEqual(submit(self.daemon, "probe", b"sleep 100").status, 202)
        reply = submit(self.daemon, "probe", b"say x")
        self.assertEqual(reply.status, 429)
        self.assertEqual(reply.outcome, "rejected:queue-full")
        self.assertIn("retry-after", reply.headers)

    def test_tasks_outlive_a_stop(self):
        # One runs, the others wait for it.
        ids = [submit(self.daemon, "probe", b"sleep-ms 300; say done").headers["x-call-id"]
               for _ in range(6)]
        self.restart(signal.SIGTERM)
        for task_id in ids:
            self.assertEqual(ended(self.daemon, task_id)["state"], "done")

    def test_what_ran_when_the_daemon_was_killed_runs_again(self):
        task_id = submit(self.daemon, "probe", b"sleep 100").headers["x-call-id"]
        wait_until(lambda: self.daemon.open_calls("probe") == 1, 30, "it runs")
        # Not the keeper: where that dies the daemon stops as if told to, and cuts nothing short.
        os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
        wait_until(lambda: self.attempts(task_id) == 2, 60, "it runs again")

    def attempts(self, task_id):
        try:
            return task_of(self.daemon, task_id)["attempts"]
        except (OSError, http.client.HTTPException):
            return None  # the next daemon is not there yet

    def test_a_call_passes_the_tasks_that_wait(self):
        for _ in range(20):
            submit(self.daemon, "probe", b"sleep-ms 700")
        wait_until(lambda: self.daemon.open_calls("probe") == 1, 30, "one runs")
        self.daemon.call("probe", b"say now")
        waiting = self.daemon.api("GET", "/v1/tasks").json()["queued"]
        self.assertGreater(waiting, 5, "the call did not wait for them")

    def test_a_function_that_goes_fails_its_tasks(self):
        first = submit(self.daemon, "probe", b"sleep-ms 500").headers["x-call-id"]
        last = submit(self.daemon, "probe", b"say x").headers["x-call-id"]
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/probe").status, 204)
        self.assertIn(ended(self.daemon, first)["state"], ("done", "failed"))
        self.assertIn(ended(self.daemon, last)["state"], ("done", "failed"))

    def test_failed_calls_are_tried_again_where_that_is_asked_for(self):
        self.daemon.put("again", {"image": "probe:1", "mode": "exec", "annotations": {
            "com.openfaas.retry.attempts": "3", "com.openfaas.retry.min_wait": "100ms"}})
        task = ended(self.daemon, submit(self.daemon, "again", b"exit 1").headers["x-call-id"])
        self.assertEqual((task["state"], task["attempts"]), ("dead", 3))
        dead = self.daemon.api("GET", "/v1/tasks?state=dead").json()["tasks"]
        self.assertEqual([one["id"] for one in dead], [task["id"]])

    def test_many_at_once_are_all_there(self):
        replies = in_parallel(40, lambda n: submit(self.daemon, "probe", b"say %d" % n))
        ids = [reply.headers["x-call-id"] for reply in replies]
        self.assertEqual(len(set(ids)), 40)
        for n, task_id in enumerate(ids):
            self.assertEqual(ended(self.daemon, task_id)["state"], "done")
            answer = self.daemon.api("GET", f"/v1/tasks/{task_id}/result")
            self.assertEqual(answer.text.strip(), str(n))


if __name__ == "__main__":
    unittest.main()
