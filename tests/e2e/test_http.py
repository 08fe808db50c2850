"""Http mode: the image's own server, reached through sockets made inside its network namespace."""

import http.client
import socket
import threading
import time
import unittest

from harness import (WARM, Case, broken_program_archive, in_parallel, raw_exchange,
                     wait_until)


class Proxy(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http(limits={"timeout": "5s"})

    def stats(self):
        return self.daemon.call("web", path="/stats").json()

    def test_the_method_path_and_query_arrive_as_sent(self):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            reply = self.daemon.call("web", path="/about/x%2Fy//z?a=%20&b", method=method)
            self.assertEqual(reply.text, "Hello over HTTP from a flea-sized sandbox!\n")
            reply = self.daemon.call("web", path="/about?a=%20&b=%2f", method=method)
            self.assertEqual(reply.text, f"{method} /about?a=%20&b=%2f\n")

    def test_the_path_rest_is_raw(self):
        reply = self.daemon.call("web", path="/headers?x=1")
        self.assertTrue(reply.text.startswith("GET /headers?x=1 HTTP/1.1\r\n"), reply.text)

    def test_no_rest_means_the_root(self):
        self.assertTrue(self.daemon.call("web", path="").text.startswith("Hello"))

    def test_end_to_end_headers_pass_and_framing_is_rebuilt(self):
        reply = self.daemon.call("web", path="/headers", headers={
            "X-Custom": "kept", "Connection": "X-Drop", "X-Drop": "gone", "TE": "trailers",
            "Proxy-Authorization": "secret"})
        lines = reply.text.lower().splitlines()
        self.assertIn("x-custom: kept", lines)
        for name in ("x-drop", "te", "proxy-authorization", "keep-alive"):
            self.assertFalse([li for li in lines if li.startswith(name + ":")], name)
        self.assertEqual(reply.headers["x-served-by"], "http-hello")

    def test_the_functions_own_status_passes(self):
        for status in (200, 201, 204, 301, 304, 400, 404, 418, 500, 503):
            reply = self.daemon.call("web", path=f"/status/{status}")
            self.assert_outcome(reply, status, "ok")

    def test_head_has_the_length_and_no_body(self):
        reply = self.daemon.call("web", path="/", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.headers["content-length"], "43")

    def test_no_length_is_told_where_the_function_told_none(self):
        reply = self.daemon.call("web", path="/big/100", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertNotIn("content-length", reply.headers)
        reply = self.daemon.call("web", path="/", method="HEAD")
        self.assertIn("content-length", reply.headers)

    def test_head_without_a_length_ends_with_the_head(self):
        for path in (b"/big/100", b"/drip/3/10", b"/status/304"):
            method = b"GET" if b"304" in path else b"HEAD"
            received, closed = raw_exchange(self.daemon.port, (
                method + b" /function/web" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
                b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 10)
            head, _, rest = received.partition(b"\r\n\r\n")
            self.assertTrue(closed)
            if b"\r\nConnection: close" in head:
                self.assertEqual(rest, b"", path)
            else:
                self.assertTrue(rest.startswith(b"HTTP/1.1 200 "), received)

    def test_bodies_go_both_ways_unchanged(self):
        body = bytes(range(256)) * 20000
        reply = self.daemon.call("web", body, "/echo")
        self.assertEqual(reply.body, body)

    def test_chunked_bodies_go_both_ways(self):
        blocks = [b"block %d " % n * 50 for n in range(3000)]
        reply = self.daemon.call("web", iter(blocks), "/echo", method="POST")
        self.assertEqual(reply.headers.get("transfer-encoding"), "chunked")
        self.assertEqual(reply.body, b"".join(blocks))

    def test_the_request_body_is_streamed(self):
        """The function sees the first part before the client has sent the last."""
        with self.daemon.connect() as s:
            s.sendall(b"POST /function/web/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            received = b""
            while b"first" not in received:
                block = s.recv(65536)
                self.assertNotEqual(block, b"", f"closed after {received}")
                received += block
            s.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
            received += b"".join(iter(lambda: s.recv(65536), b""))
        self.assertIn(b"second", received)

    def test_the_response_is_streamed(self):
        for accept in ("*/*", "text/event-stream", "application/x-ndjson"):
            connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
            connection.request("GET", "/function/web/drip/4/400", headers={"Accept": accept})
            response = connection.getresponse()
            self.assertEqual(response.read1(5), b"drip\n")
            first = time.monotonic()
            self.assertEqual(response.read(), b"drip\n" * 3)
            self.assertGreater(time.monotonic() - first, 0.6, "the others came later")
            connection.close()

    def test_a_large_download_with_a_slow_reader_is_bounded(self):
        import leaks
        before = leaks.memory_kib(self.daemon.daemon_pid())
        with self.daemon.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.sendall(b"GET /function/web/big/100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(1.0)
            self.assertLess(leaks.memory_kib(self.daemon.daemon_pid()) - before, 4096)

    def test_a_large_download_is_complete(self):
        reply = self.daemon.call("web", path="/big/30000000")
        self.assertEqual(len(reply.body), 30000000)

    def test_expect_continue_works(self):
        with self.daemon.connect() as s:
            s.sendall(b"POST /function/web/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
                      b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100"))
            s.sendall(b"body")
            received = b"".join(iter(lambda: s.recv(65536), b""))
        self.assertTrue(received.endswith(b"body"), received)

    def test_upstream_connections_are_kept_and_reused(self):
        before = self.stats()["open"]
        for _ in range(30):
            self.daemon.call("web", path="/")
        self.assertLessEqual(self.stats()["open"], before)

    def test_a_server_that_closes_each_time_works_too(self):
        for _ in range(10):
            self.assertEqual(self.daemon.call("web", path="/close").status, 200)

    def test_many_calls_at_once_share_one_instance(self):
        replies = in_parallel(60, lambda n: self.daemon.call("web", path="/sleep/300"))
        self.assertEqual({r.status for r in replies}, {200})
        status = self.daemon.api("GET", "/v1/functions/web").json()
        self.assertEqual(repr(status).count("'slot'"), 1, status)

    def test_malformed_replies_are_bad_responses(self):
        for how in ("", "/status", "/length", "/chunk", "/header", "/early"):
            reply = self.daemon.call("web", path="/bad" + how)
            if reply.broken is None:
                self.assert_outcome(reply, 502, "bad-response")
            self.assertEqual(self.daemon.call("web", path="/").status, 200)

    def test_a_reply_that_is_cut_is_cut_for_the_client_too(self):
        reply = self.daemon.call("web", path="/bad/cut")
        self.assertTrue(reply.broken or reply.status == 502, repr(reply))

    def test_timed_out(self):
        started = time.monotonic()
        reply = self.daemon.call("web", path="/hang")
        self.assert_outcome(reply, 504, "timed-out")
        self.assertLess(time.monotonic() - started, 9)

    def test_a_client_that_goes_away_cancels(self):
        before = self.stats()["cancelled"]
        with self.daemon.connect() as s:
            s.sendall(b"GET /function/web/sleep/4000 HTTP/1.1\r\nHost: x\r\n"
                      b"X-Call-Id: gone-away\r\n\r\n")
            time.sleep(0.3)
        wait_until(lambda: self.stats()["cancelled"] > before, 30,
                   "the function sees its connection closed")
        logs = self.daemon.api("GET", "/v1/functions/web/logs").text
        self.assertRegex(logs, "gone-away.*ended with cancelled")


class Lifecycle(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http()

    def deploy(self, name, **spec):
        return self.daemon.put(name, {"image": "http-hello:1", "mode": "http", **spec})

    def test_a_server_that_is_slow_to_listen_is_waited_for(self):
        self.deploy("slow", env={"START_DELAY_MS": "700"})
        started = time.monotonic()
        reply = self.daemon.call("slow", path="/")
        self.assert_outcome(reply, 200, "ok")
        self.assertGreater(time.monotonic() - started, 0.65)
        self.assertEqual(reply.headers["x-pulga-start"], "cold")
        self.assertRegex(reply.headers["server-timing"], r"ready;dur=[67]\d\d\.")
        self.assertIn(self.daemon.call("slow", path="/").headers["x-pulga-start"], WARM)

    def test_calls_behind_others_say_that_they_waited_and_were_served_warm(self):
        self.deploy("narrow", scale={"max": 1, "concurrency": 1, "queue_wait": "60s"})

        def call(_):
            started = time.monotonic()
            reply = self.daemon.call("narrow", path="/sleep/100")
            took = (time.monotonic() - started) * 1000
            steps = dict(step.strip().split(";dur=")
                         for step in reply.headers["server-timing"].split(","))
            return reply.headers["x-pulga-start"], sum(map(float, steps.values())), took

        receipts = sorted(in_parallel(8, call), key=lambda receipt: receipt[1])
        self.assertEqual([start for start, _, _ in receipts].count("cold"), 1, receipts)
        self.assertEqual([start for start, _, _ in receipts].count("warm"), 7, receipts)
        for place, (_, told, took) in enumerate(receipts):
            self.assertLessEqual(told, took)
            self.assertGreater(told, 100 * place, "one after the other")

    def test_readiness_is_noticed_at_once(self):
        def ready(n):
            self.deploy(f"quick-{n}")
            timing = self.daemon.call(f"quick-{n}", path="/").headers["server-timing"]
            return float(timing.split("ready;dur=")[1].split(",")[0])

        # Of several, the one that nothing else on the machine held up.
        self.assertTrue(any(ready(n) < 30 for n in range(10)))

    def test_a_server_that_never_listens_is_not_ready(self):
        self.deploy("never", env={"NEVER_LISTEN": "1"}, limits={"start_timeout": "1s"})
        reply = self.daemon.call("never", path="/")
        self.assert_outcome(reply, 503, "not-ready")

    def test_a_server_that_dies_at_start_is_known_at_once(self):
        self.daemon.import_archive(broken_program_archive())
        self.deploy("dies", image="broken:1")
        started = time.monotonic()
        reply = self.daemon.call("dies", path="/")
        self.assert_outcome(reply, 503, "setup-failed:exec")
        self.assertLess(time.monotonic() - started, 5, "nobody waited for start_timeout")

    def test_a_server_that_dies_answers_and_comes_back(self):
        self.deploy("mortal")
        for path, outcome in (("/exit/3", "exited:3"), ("/crash", "signaled:SIGSEGV")):
            for _ in range(5):
                self.assert_outcome(self.daemon.call("mortal", path="/"), 200, "ok")
                self.assert_outcome(self.daemon.call("mortal", path=path), 500, outcome)

    def test_who_meets_its_death_reads_nothing_of_others_requests(self):
        self.deploy("mortal", limits={"memory": "24Mi"})
        for path in ("/exit/3", "/crash", "/alloc/200"):
            self.daemon.call("mortal", path="/tell/card-4111")
            reply = self.daemon.call("mortal", path=path)
            self.assertEqual(reply.status, 500)
            self.assertNotIn("4111", reply.text)
        wait_until(lambda: "card-4111" in self.daemon.cli_ok("logs", "mortal"), 30,
                   "whoever may read the log finds it")

    def test_memory_bombs_are_oom(self):
        self.deploy("eater", limits={"memory": "24Mi"})
        self.assertEqual(self.daemon.call("eater", path="/").status, 200)
        reply = self.daemon.call("eater", path="/alloc/200")
        self.assert_outcome(reply, 500, "oom-killed")
        self.assertEqual(self.daemon.call("eater", path="/").status, 200)

    def test_a_hundred_connections_at_once(self):
        self.deploy("wide", scale={"concurrency": 100, "max": 2})
        replies = in_parallel(100, lambda n: self.daemon.call("wide", path="/sleep/200"))
        self.assertEqual({getattr(r, "status", r) for r in replies}, {200})

    def test_the_function_has_no_network_and_still_serves(self):
        self.daemon.import_sample("probe")
        self.daemon.put("net", {"image": "probe:1", "mode": "exec"})
        reply = self.daemon.call("net", b"connect %d; connect 53 8 8 8 8" % self.daemon.port)
        self.assertNotIn("ok", reply.text)

    def test_call_after_call_the_environment_has_port(self):
        self.deploy("port", port=9191)
        self.assertIn("PORT=9191", self.daemon.call("port", path="/env").text)

    def test_calls_meet_a_deleted_function_with_a_status(self):
        self.deploy("going")
        self.daemon.call("going", path="/")
        results = []
        caller = threading.Thread(
            target=lambda: results.append(self.daemon.call("going", path="/sleep/800")))
        caller.start()
        time.sleep(0.3)
        self.assertIn(self.daemon.api("DELETE", "/v1/functions/going").status, (200, 202, 204))
        caller.join(20)
        self.assertEqual(results[0].status, 200, "a running call may finish")
        self.assertEqual(self.daemon.call("going", path="/").status, 404)


if __name__ == "__main__":
    unittest.main()
