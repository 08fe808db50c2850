"""Frames mode: the image's own program at the other end of an inherited socket (docs/frames.md)."""

import contextlib
import json

from harness import Case, OwnDaemonCase, in_parallel, raw_exchange, wait_until

BODY = bytes(range(256)) * 20000  # 5 MB: many times every buffer on the way


def deploy(daemon, name="framed", **spec):
    daemon.import_sample("frames-hello")
    return daemon.put(name, {"image": "frames-hello:1", "mode": "frames", **spec})


class Frames(Case):
    @classmethod
    def prepare(cls):
        deploy(cls.daemon, limits={"timeout": "60s"})

    def call(self, path, body=None, **more):
        return self.daemon.call("framed", body, path, **more)

    def stats(self):
        return self.call("/stats").json()

    def test_the_deploy_answer_says_the_mode_and_that_there_is_no_port(self):
        found = self.daemon.api("GET", "/v1/functions/framed").json()
        self.assertEqual((found["mode"], found["port"]), ("frames", None))
        self.assertEqual(found["concurrency"], 100)

    def test_the_method_path_query_and_headers_arrive_as_sent(self):
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            reply = self.call("/about?a=%20&b", method=method)
            self.assert_outcome(reply, 200, "ok")
            self.assertEqual(reply.text, f"{method} /about?a=%20&b\n")
        lines = self.call("/headers", headers={"X-Custom": "kept", "Connection": "X-Drop",
                                               "X-Drop": "gone"}).text.lower().splitlines()
        self.assertIn("x-custom: kept", lines)
        self.assertFalse([line for line in lines if line.startswith(("x-drop", "connection"))])

    def test_its_status_and_headers_pass(self):
        for status in (200, 201, 301, 404, 418, 503):
            reply = self.call(f"/status/{status}")
            self.assert_outcome(reply, status, "ok")
            self.assertEqual(reply.headers["x-served-by"], "frames-hello")
        reply = self.call("/", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.headers["content-length"], "43")

    def test_only_the_standard_descriptors_and_the_channel_survive(self):
        self.assertEqual(self.call("/fds").text.split(), ["0", "1", "2", "3"])
        self.assertIn("PULGA_FRAMES_FD=3\n", self.call("/env").text)

    def test_bodies_go_both_ways_unchanged(self):
        self.assertEqual(self.call("/echo", BODY).body, BODY)
        reply = self.call("/echo", (BODY[at:at + 9999] for at in range(0, len(BODY), 9999)),
                          method="POST")
        self.assertEqual(reply.body, BODY)
        self.assertEqual(len(self.call("/big/10000000").body), 10000000)
        self.assertEqual(self.call("/sink", BODY).text, "taken\n")

    def test_both_directions_stream_at_once(self):
        with self.daemon.connect() as client:
            client.sendall(b"POST /function/framed/echo HTTP/1.1\r\nHost: x\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            received = b""
            while not received.endswith(b"5\r\nfirst\r\n"):
                received += client.recv(4096)
            client.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
            while not received.endswith(b"\r\n\r\n"):
                received += client.recv(4096)
        self.assertIn(b"\r\n6\r\nsecond\r\n0\r\nX-Pulga-Outcome: ok\r\n", received)

    def test_calls_share_one_instance_and_do_not_wait_for_each_other(self):
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(self.daemon.connect())
                client.sendall(b"GET /function/framed/hang HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: self.stats()["open"] == 31, 60, "all of them at once")
        wait_until(lambda: self.stats()["open"] == 1, 60, "their end")
        listed = self.daemon.api("GET", "/v1/functions/framed").json()["instances"]
        self.assertEqual(len(listed), 1, listed)

    def test_echoes_at_once_are_not_mixed(self):
        bodies = [bytes([n]) * (1000 + 40000 * n) for n in range(20)]
        replies = in_parallel(20, lambda n: self.call("/echo", bodies[n]))
        self.assertEqual([reply.body for reply in replies], bodies)

    def test_a_client_that_reads_slowly_holds_up_nobody_else(self):
        with self.daemon.connect() as slow:
            slow.sendall(b"GET /function/framed/big/50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            slow.recv(1000)
            for _ in range(20):
                self.assertEqual(len(self.call("/big/100000").body), 100000)

    def test_the_function_hears_that_its_client_has_left(self):
        before = self.stats()["cancelled"]
        for path in (b"/hang", b"/drip/100000/10"):
            with self.daemon.connect() as client:
                client.sendall(b"GET /function/framed" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                wait_until(lambda: self.daemon.open_calls("framed") == 1, 30, "the call")
        wait_until(lambda: self.stats()["cancelled"] == before + 2, 30, "two cancels")
        wait_until(lambda: self.stats()["open"] == 1, 30, "only the one that asks")

    def test_what_is_wrong_in_one_answer_fails_one_call(self):
        started = self.stats()["served"]
        for how in ("status", "header", "value", "length", "short"):
            received, _ = raw_exchange(self.daemon.port, (
                b"GET /function/framed/bad/" + how.encode() +
                b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 30)
            self.assertTrue(received.startswith(b"HTTP/1.1 502 "), (how, received))
        self.assert_outcome(self.call("/giveup"), 502, "bad-response")
        self.assertEqual(self.call("/bad/forged").outcome, "ok")
        self.assertGreater(self.stats()["served"], started, "another instance answers")


class Hostile(Case):
    @classmethod
    def prepare(cls):
        deploy(cls.daemon, limits={"timeout": "60s", "grace": "1s"})

    def test_broken_frames_end_that_instance_only(self):
        deploy(self.daemon, "beside")
        for how in ("id", "twice", "headless", "hello", "type", "flag", "credit", "window", "size",
                    "reserved", "garbage", "close", "middle", "late"):
            with self.subTest(how):
                self.assertEqual(self.daemon.call("framed", path="/").status, 200)
                served = self.daemon.call("beside", path="/stats").json()["served"]
                received, _ = raw_exchange(self.daemon.port, (
                    b"GET /function/framed/bad/" + how.encode() +
                    b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 60)
                if how == "late":  # its call was over
                    self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)
                elif how not in ("window", "twice", "middle"):  # those began an answer
                    self.assertTrue(received.startswith(b"HTTP/1.1 502 "), (how, received))
                    self.assertIn(b"X-Pulga-Outcome: bad-response", received)
                wait_until(lambda: self.daemon.call("framed", path="/stats").json()["served"] == 0,
                           60, "a new instance")
                self.assertGreater(self.daemon.call("beside", path="/stats").json()["served"],
                                   served)

    def test_no_descriptor_comes_through(self):
        self.assertEqual(self.daemon.call("framed", path="/").status, 200)
        reply = self.daemon.call("framed", path="/bad/descriptor")
        if reply.status != 200:  # before Linux 6.16
            return self.assert_outcome(reply, 502, "bad-response")
        return self.assertEqual(reply.text, "refused\n")

    def test_a_death_in_the_middle_is_told_apart(self):
        self.assert_outcome(self.daemon.call("framed", path="/crash"), 500, "signaled:SIGSEGV")
        self.assert_outcome(self.daemon.call("framed", path="/exit/7"), 500, "exited:7")
        received, closed = raw_exchange(
            self.daemon.port, b"GET /function/framed/cut HTTP/1.1\r\nHost: x\r\n\r\n", 60)
        self.assertTrue(closed)
        self.assertIn(b"cut off", received)
        self.assertFalse(received.endswith(b"0\r\n\r\n"), received)
        self.assertEqual(self.daemon.call("framed", path="/").status, 200)

    def test_silence_times_out_and_the_instance_is_told(self):
        deploy(self.daemon, "silent", limits={"timeout": "5s"})
        self.assert_outcome(self.daemon.call("silent", path="/hang"), 504, "timed-out")
        self.assertEqual(self.daemon.call("silent", path="/stats").json()["cancelled"], 1)

    def test_a_start_without_a_proper_hello_fails_by_its_cause(self):
        for name, outcome in (("never-hello", "not-ready"), ("bad-hello", "not-ready"),
                              ("early-exit", "exited:3")):
            with self.subTest(name):
                deploy(self.daemon, name, env={name.upper().replace("-", "_"): "3"},
                       limits={"start_timeout": "3s" if name == "never-hello" else "60s"})
                reply = self.daemon.call(name, path="/")
                self.assertEqual(reply.outcome, outcome, repr(reply))


class Life(Case):
    def test_it_is_frozen_between_calls_and_thawed_by_the_next(self):
        deploy(self.daemon, "framed", scale={"max": 1, "freeze_after": "200ms"})
        step = lambda: [i["step"] for i in self.daemon.api(  # noqa: E731
            "GET", "/v1/functions/framed").json()["instances"]]
        self.assertEqual(self.daemon.call("framed", path="/").status, 200)
        wait_until(lambda: step() == ["frozen"], 60, lambda: f"frozen: {step()}")
        reply = self.daemon.call("framed", path="/echo", body=b"thawed")
        self.assertEqual((reply.text, reply.headers["x-pulga-start"]), ("thawed", "frozen"))

    def test_a_new_version_takes_over_without_a_failed_call(self):
        deploy(self.daemon, "moving", env={"WORD": "1"})
        self.daemon.call("moving", path="/")
        slow = in_parallel(4, lambda n: self.daemon.call("moving", path="/sleep/1500") if n < 3
                           else deploy(self.daemon, "moving", env={"WORD": "2"}))
        self.assertEqual([reply.text for reply in slow[:3]], ["slept\n"] * 3)
        self.assertIn("WORD=2\n", self.daemon.call("moving", path="/env").text)

    def test_an_argument_is_for_programs_alone(self):
        self.daemon.import_sample("frames-hello")
        reply = self.daemon.api("PUT", "/v1/functions/no", {
            "image": "frames-hello:1", "mode": "frames", "input": "argument"})
        self.assertEqual(reply.status, 400, repr(reply))
        self.assertIn("frames mode", reply.json()["error"]["message"])


class Restart(OwnDaemonCase):
    def test_it_serves_again_after_a_restart_of_the_daemon(self):
        deploy(self.daemon)
        self.assertEqual(self.daemon.call("framed", path="/").status, 200)
        with self.daemon.connect() as client:
            client.sendall(b"GET /function/framed/hang HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: self.daemon.open_calls("framed") == 1, 30, "the call")
            self.daemon.stop()
        self.daemon.start()
        reply = self.daemon.call("framed", path="/stats")
        self.assertEqual(json.loads(reply.text), {"open": 1, "served": 0, "cancelled": 0})
