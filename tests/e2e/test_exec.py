"""Exec mode: what the program sees, how its reply is made, and every way a call can end."""

import http.client
import socket
import threading
import time
import unittest

import leaks
from harness import SANITIZED, Case, broken_program_archive, raw_exchange, wait_until


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % (1 << 64)
    return value


class Requests(Case):
    """What the program sees."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.put("arg", {"image": "probe:1", "mode": "exec", "input": "argument"})
        cls.daemon.put("env", {"image": "probe:1", "mode": "exec", "args": ["env"],
                               "env": {"COLOUR": "red"}, "content_type": "text/plain"})
        cls.daemon.import_sample("echo")
        cls.daemon.put("echo", {"image": "echo:1", "mode": "exec"})

    def variables(self, reply):
        return dict(line.partition("=")[::2] for line in reply.text.splitlines())

    def test_the_request_is_in_the_environment(self):
        reply = self.daemon.call("env", b"x", "/some/path?a=1&b=2", method="PUT",
                                 headers={"X-Thing": "seven", "Content-Type": "text/x"})
        seen = self.variables(reply)
        self.assertEqual(seen["Http_Method"], "PUT")
        self.assertEqual(seen["Http_Path"], "/some/path")
        self.assertEqual(seen["Http_Query"], "a=1&b=2")
        self.assertEqual(seen["Http_X_Thing"], "seven")
        self.assertEqual(seen["PULGA_CALL_ID"], reply.headers["x-call-id"])
        self.assertEqual(seen["COLOUR"], "red")
        self.assertEqual(reply.headers["content-type"], "text/plain")

    def test_credentials_of_the_api_are_not_in_the_environment(self):
        reply = self.daemon.call("env")
        self.assertNotIn(self.daemon.key, reply.text)
        self.assertNotIn("PULGA_KEY", reply.text)

    def test_a_header_name_cannot_forge_another_variable(self):
        reply = self.daemon.call("env", headers={"Method": "FORGED", "Path": "/forged"})
        seen = self.variables(reply)
        self.assertNotEqual(seen["Http_Path"], "/forged")
        self.assertNotEqual(seen["Http_Method"], "FORGED")

    def test_a_deploy_cannot_shadow_what_the_request_sets(self):
        warnings = self.daemon.put("shadow", {
            "image": "probe:1", "mode": "exec", "args": ["env"],
            "env": {"Http_Method": "FOO", "Http_Later": "x", "PULGA_CALL_ID": "1", "HTTP_X": "y"}})
        warnings = " ".join(warnings.json()["warnings"])
        self.assertIn("Http_Method is left out", warnings)
        self.assertNotIn("HTTP_X", warnings)
        reply = self.daemon.call("shadow", b"x", headers={"Content_Length": "9"})
        names = [line.partition("=")[0] for line in reply.text.splitlines()]
        self.assertEqual(len(names), len(set(names)), reply.text)
        seen = self.variables(reply)
        self.assertEqual((seen["Http_Method"], seen["Http_Content_Length"], seen["HTTP_X"]),
                         ("POST", "1", "y"))
        self.assertEqual(seen["PULGA_CALL_ID"], reply.headers["x-call-id"])
        self.assertNotIn("Http_Later", seen)

    def test_many_and_huge_headers_are_bounded(self):
        headers = {f"X-Many-{n}": "v" * 40 for n in range(100)}
        reply = self.daemon.call("env", headers=headers)
        self.assertIn(reply.status, (200, 431))

    def test_the_body_is_on_stdin(self):
        for size in (0, 1, 65536, 3_000_000):
            body = bytes(n * 7 % 256 for n in range(1000)) * (size // 1000) + b"q" * (size % 1000)
            reply = self.daemon.call("probe", body, "/stdin-hash", method="POST")
            high, low = reply.text.split(" bytes ")[1].split()
            self.assertEqual(reply.text.split()[0], str(size))
            self.assertEqual((int(high, 16) << 32) | int(low, 16), fnv1a(body))

    def test_a_chunked_body_is_the_same_body(self):
        blocks = (b"part %d;" % n for n in range(2000))
        reply = self.daemon.call("echo", blocks, method="POST")
        self.assertEqual(reply.body, b"".join(b"part %d;" % n for n in range(2000)))

    def test_the_body_may_be_the_last_argument(self):
        reply = self.daemon.call("arg", b"say one two")
        self.assertEqual(reply.text, "one two\n")

    def test_an_argument_too_long_is_told_its_own_limit(self):
        reply = self.daemon.call("arg", b"say " + b"x" * 140000)
        self.assertEqual(reply.status, 413)
        self.assertIn("131071 bytes", reply.text)
        self.assertNotIn("6.0 MiB", reply.text)

    def test_a_nul_byte_cannot_be_an_argument(self):
        reply = self.daemon.call("arg", b"say a\0b")
        self.assertEqual(reply.status, 400)

    def test_each_call_has_its_own_fresh_sandbox(self):
        self.assertIn("write: ok", self.daemon.call("probe", b"write /tmp/secret s").text)
        self.assertIn("errno 2", self.daemon.call("probe", b"cat /tmp/secret").text)

    def test_stderr_goes_to_the_log(self):
        reply = self.daemon.call("probe", b"stderr seen-in-log; say visible")
        self.assertEqual(reply.text, "visible\n")
        call_id = reply.headers["x-call-id"]
        logs = wait_until(lambda: "seen-in-log" in self.daemon.cli_ok("logs", "probe")
                          and self.daemon.cli_ok("logs", "probe", "--json"), 30, "the log line")
        self.assertIn(call_id, logs)

    def test_a_program_that_never_reads_still_answers(self):
        reply = self.daemon.call("probe", b"x" * 5_000_000, "/say/fine", method="POST")
        self.assertEqual((reply.status, reply.text), (200, "/fine\n"))


class Replies(Case):
    """The held and the streamed reply."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"output": "8Mi"})
        cls.daemon.import_sample("echo")
        cls.daemon.put("echo", {"image": "echo:1", "mode": "exec"})

    def test_a_short_reply_is_held_and_has_a_length(self):
        reply = self.daemon.call("probe", b"output 65000")
        self.assert_outcome(reply, 200, "ok")
        self.assertEqual(len(reply.body), 65000)
        self.assertEqual(reply.headers["content-length"], "65000")

    def test_a_long_reply_is_streamed_with_the_outcome_as_trailer(self):
        raw = self.raw_call(b"output 200000")
        head, _, rest = raw.partition(b"\r\n\r\n")
        self.assertIn(b"transfer-encoding: chunked", head.lower())
        self.assertNotIn(b"\r\nx-pulga-outcome:", head.lower())
        trailer = rest.rsplit(b"\r\n0\r\n", 1)[1].lower()
        self.assertIn(b"x-pulga-outcome: ok", trailer)
        self.assertIn(b"server-timing:", trailer)

    def test_a_streamed_reply_that_fails_ends_without_the_final_chunk(self):
        raw = self.raw_call(b"output 200000; exit 3")
        self.assertTrue(raw.startswith(b"HTTP/1.1 200"))
        self.assertFalse(raw.endswith(b"0\r\n\r\n"), "the client cannot see that it was cut")
        self.assertNotIn(b"\r\n0\r\n", raw[-200:])

    def raw_call(self, body):
        with self.daemon.connect() as s:
            s.sendall(b"POST /function/probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return b"".join(iter(lambda: s.recv(65536), b""))

    def test_streaming_may_be_asked_for(self):
        for path, headers in (("?stream=1", {}), ("", {"Accept": "text/event-stream"})):
            connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
            started = time.monotonic()
            connection.request("POST", "/function/probe" + path, b"say first; sleep 2; say last",
                               headers)
            response = connection.getresponse()
            self.assertEqual(response.readline(), b"first\n")
            self.assertLess(time.monotonic() - started, 1.5, "the first byte was held")
            self.assertEqual(response.read(), b"last\n")
            connection.close()

    def test_a_slow_reader_does_not_fill_memory(self):
        before = self.resident()
        with self.daemon.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = b"output 8000000"
            s.sendall(b"POST /function/probe HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                      % len(body) + body)
            time.sleep(1.5)
            self.assertLess(self.resident() - before, 4096, "KiB more while nobody reads")

    def resident(self):
        return leaks.memory_kib(self.daemon.daemon_pid())

    def test_bytes_pass_unchanged(self):
        body = bytes(range(256)) * 3000
        self.assertEqual(self.daemon.call("echo", body).body, body)

    def test_a_broken_stream_is_no_success_over_http_1_0_either(self):
        def ask(deed):
            with self.daemon.connect() as connection:
                connection.sendall(b"GET /function/probe/" + deed + b" HTTP/1.0\r\n\r\n")
                received = b""
                while data := connection.recv(65536):
                    received += data
            return received
        whole = ask(b"output/300000")
        self.assertIn(b" 200 ", whole[:20])
        self.assertNotIn(b"\r\nTrailer:", whole)
        self.assertGreater(len(whole), 300000)
        with self.assertRaises(ConnectionResetError):
            ask(b"?output+300000;exit+3")

    def test_head_has_no_body(self):
        reply = self.daemon.call("probe", None, "/say/x", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))

    def test_head_has_no_chunk_either(self):
        # A program that has ended before its first byte is read has a length: the client ends it.
        for target in (b"/output/300000", b"/say/x?stream=1"):
            received, closed = raw_exchange(
                self.daemon.port,
                b"HEAD /function/probe" + target +
                b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)
            self.assertTrue(received.endswith(b"\r\n\r\n") and received.count(b"\r\n\r\n") == 1,
                            received)
            self.assertTrue(closed)

    def test_a_keep_alive_connection_serves_many_calls(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
        for n in range(20):
            connection.request("POST", "/function/probe", b"say %d" % n)
            self.assertEqual(connection.getresponse().read(), b"%d\n" % n)
        connection.close()


class Outcomes(Case):
    """Every way a call ends, told apart."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": "24Mi", "timeout": "2s", "grace": "500ms",
                                        "output": "100k", "body": "1Mi", "pids": 16})
        cls.daemon.import_sample("probe")
        cls.daemon.put("one", {"image": "probe:1", "mode": "exec", "limits": {"timeout": "20s"},
                               "scale": {"max": 1, "queue": 1, "queue_wait": "1s"}})
        cls.daemon.import_archive(broken_program_archive())
        cls.daemon.put("broken", {"image": "broken:1", "mode": "exec"})

    def test_ok(self):
        self.assert_outcome(self.daemon.call("probe", b"exit 0"), 200, "ok")

    def test_exited_with_the_end_of_stderr(self):
        reply = self.daemon.call("probe", b"stderr why-it-failed; exit 3")
        self.assert_outcome(reply, 500, "exited:3")
        self.assertIn("why-it-failed", reply.text)
        self.assertIn("3", reply.text)

    def test_only_the_last_four_kib_of_stderr_come_back(self):
        reply = self.daemon.call("probe", b"stderr 50000; stderr tail-end; exit 1")
        self.assertIn("tail-end", reply.text)
        self.assertLess(len(reply.body), 6000)

    def test_signals_by_their_true_name(self):
        for deed, name in ((b"segv", "SIGSEGV"), (b"signal 6", "SIGABRT"),
                           (b"signal 9", "SIGKILL"), (b"signal 15", "SIGTERM")):
            self.assert_outcome(self.daemon.call("probe", deed), 500, "signaled:" + name)

    def test_oom_with_peak_and_limit(self):
        reply = self.daemon.call("probe", b"oom")
        self.assert_outcome(reply, 500, "oom-killed")
        self.assertRegex(reply.text, r"limit 24(\.0)? ?Mi")

    def test_oom_of_a_child_ends_what_the_kernel_ends(self):
        """cgroup v2 kills the group; v1 the child alone, and a parent that copes is fine."""
        reply = self.daemon.call("probe", b"oom-child")
        if leaks.has_group_oom():
            self.assert_outcome(reply, 500, "oom-killed")
        elif SANITIZED and reply.outcome == "oom-killed":
            pass  # with its shadow memory our init is the largest there, so the kernel took that
        else:
            self.assertEqual((reply.outcome, reply.text), ("ok", "child status 9\n"))
            self.assert_outcome(self.daemon.call("probe", b"oom-child; exit 3"), 500, "oom-killed")

    def test_timed_out(self):
        started = time.monotonic()
        reply = self.daemon.call("probe", b"sleep 30")
        self.assert_outcome(reply, 504, "timed-out")
        self.assertIn("sandbox;dur=", reply.headers["server-timing"])
        self.assertLess(time.monotonic() - started, 6)

    def test_timed_out_though_term_is_ignored(self):
        started = time.monotonic()
        self.assert_outcome(self.daemon.call("probe", b"ignore-term 30"), 504, "timed-out")
        self.assertLess(time.monotonic() - started, 6)

    def test_timed_out_while_burning_cpu(self):
        self.assert_outcome(self.daemon.call("probe", b"cpu 30"), 504, "timed-out")

    def test_death_by_seccomp(self):
        self.assert_outcome(self.daemon.call("probe", b"sigsys"), 500, "syscall-denied")

    def test_too_much_output(self):
        reply = self.daemon.call("probe", b"output 200000")
        if reply.broken is None:
            self.assert_outcome(reply, 502, "output-limit")
        else:  # it was already streaming: cut, with the outcome in the counts
            self.assertEqual(reply.status, 200)
        outcomes = self.daemon.api("GET", "/v1/functions/probe").json()
        self.assertIn("output-limit", repr(outcomes))

    def test_a_fork_bomb_hits_the_pids_limit(self):
        reply = self.daemon.call("probe", b"forkbomb")
        self.assertIn("errno 11", reply.text)

    def test_a_program_the_kernel_does_not_take_is_a_set_up_failure(self):
        reply = self.daemon.call("broken", b"")
        self.assert_outcome(reply, 503, "setup-failed:exec")

    def test_too_large_a_body(self):
        reply = self.daemon.call("probe", b"x" * 2_000_000)
        self.assertEqual(reply.status, 413)
        blocks = (b"y" * 10000 for _ in range(200))
        reply = self.daemon.call("probe", blocks, "/stdin-hash", method="POST")
        self.assertEqual(reply.status, 413)

    def test_queue_full_and_queue_timeout(self):
        replies = []
        callers = [threading.Thread(
            target=lambda: replies.append(self.daemon.call("one", b"sleep 3"))) for _ in range(3)]
        for caller in callers:
            caller.start()
            time.sleep(0.3)
        for caller in callers:
            caller.join()
        self.assertEqual(sorted(r.status for r in replies), [200, 429, 429])
        refused = {r.outcome for r in replies if r.status == 429}
        self.assertEqual(refused, {"rejected:queue-full", "rejected:queue-timeout"})
        for reply in replies:
            if reply.status == 429:
                self.assertGreaterEqual(int(reply.headers["retry-after"]), 1)

    def test_a_client_that_goes_away_cancels(self):
        def cancelled():
            return self.daemon.api("GET", "/v1/functions/one").json()
        with self.daemon.connect() as s:
            s.sendall(b"POST /function/one HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n"
                      b"sleep 15")
            time.sleep(0.4)
        wait_until(lambda: "cancelled" in repr(cancelled()), 30, "the outcome is counted")
        started = time.monotonic()
        self.assert_outcome(self.daemon.call("one", b"say free"), 200, "ok")
        self.assertLess(time.monotonic() - started, 3, "the slot was not freed")

    def test_an_unknown_function(self):
        reply = self.daemon.call("nobody", b"")
        self.assertEqual(reply.status, 404)
        self.assertIn("nobody", reply.text)
        self.assertNotEqual(reply.headers["content-type"], "application/json")

    def test_errors_are_json_for_those_who_ask(self):
        reply = self.daemon.call("probe", b"exit 3", headers={"Accept": "application/json"})
        self.assert_outcome(reply, 500, "exited:3")
        self.assertEqual(reply.json()["error"]["code"], "exited")

    def test_a_failed_call_spares_the_next(self):
        for deed in (b"exit 1", b"segv", b"oom", b"sigsys", b"output 200000"):
            self.daemon.call("probe", deed)
            self.assert_outcome(self.daemon.call("probe", b"say ok"), 200, "ok")


class Receipts(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(scale={"parked": 1})
        cls.daemon.put("cold", {"image": "probe:1", "mode": "exec", "scale": {"parked": 0}})

    def test_every_reply_carries_its_receipt(self):
        for body, status in ((b"exit 0", 200), (b"exit 1", 500)):
            reply = self.daemon.call("probe", body)
            self.assertEqual(reply.status, status)
            self.assertIn(reply.headers["x-pulga-start"], ("cold", "parked"))
            self.assertRegex(reply.headers["server-timing"], r"function;dur=\d+\.\d{3}")
            self.assertRegex(reply.headers["server-timing"], r"queue;dur=\d+\.\d{3}")
            self.assertRegex(reply.headers["server-timing"], r"sandbox;dur=\d+\.\d{3}, exec;dur=")

    def test_call_ids_differ(self):
        ids = {self.daemon.call("probe", b"exit 0").headers["x-call-id"] for _ in range(20)}
        self.assertEqual(len(ids), 20)

    def test_a_parked_sandbox_is_used_and_replaced(self):
        self.daemon.call("probe", b"exit 0")  # a function nobody uses has none
        for _ in range(3):
            time.sleep(0.3)
            reply = self.daemon.call("probe", b"exit 0")
            self.assertEqual(reply.headers["x-pulga-start"], "parked")

    def test_nothing_parked_means_cold(self):
        self.assertEqual(self.daemon.call("cold", b"exit 0").headers["x-pulga-start"], "cold")

    def test_invoke_v_prints_the_receipt_as_a_table(self):
        done = self.daemon.cli("invoke", "probe", "-d", "say hi", "-v")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(done.stdout, b"hi\n", "the reply alone is on stdout")
        for word in (b"ok", b"parked", b"function", b"ms"):
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
