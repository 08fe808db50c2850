"""Clients that lie about framing, drip their headers, or flood; cases A01 to A06 and A35."""

import http.client
import re
import select
import socket
import time
import unittest

from harness import WARM, Case, Daemon, in_parallel, raw_exchange, wait_until

SECOND = b"GET /function/web/exit/9 HTTP/1.1\r\nHost: x\r\n\r\n"  # must never be executed


def heads_in(received):
    return len(re.findall(rb"HTTP/1\.[01] \d\d\d ", received))


class Smuggling(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http()
        cls.daemon.call("web", path="/")

    def tearDown(self):
        super().tearDown()
        self.assertIn(self.daemon.call("web", path="/stats").headers["x-pulga-start"], WARM,
                         "the second, smuggled request was executed")

    def send(self, head, body=b"", path=b"/function/web/echo"):
        data = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body
        return raw_exchange(self.daemon.port, data, 4)

    def assert_refused(self, head, body=b""):
        received, closed = self.send(head, body)
        self.assertTrue(received.startswith(b"HTTP/1.1 4"), received[:200])
        self.assertTrue(closed, "the connection stays open after a framing error")
        self.assertEqual(heads_in(received), 1, received)
        self.assertNotIn(b"<html", received)

    def assert_one_reply_at_most(self, head, body=b""):
        """Refused, or served once with the framing rebuilt; nothing after it is a request."""
        received, _ = self.send(head, body)
        self.assertEqual(heads_in(received), 1, received)
        self.assertNotIn(b"<html", received)

    def test_a_missing_host_is_refused_once(self):
        received, closed = raw_exchange(self.daemon.port, b"GET / HTTP/1.1\r\n\r\n", 5)
        self.assertTrue(closed)
        self.assertTrue(received.startswith(b"HTTP/1.1 400"), received)
        self.assertEqual(heads_in(received), 1, received)

    def test_a_bad_chunk_after_the_reply_began_only_closes(self):
        for _ in range(5):
            with self.daemon.connect(5) as s:
                s.sendall(b"POST /function/web/echo HTTP/1.1\r\nHost: x\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                received = b""
                while b"\r\nhello\r\n" not in received:
                    block = s.recv(65536)
                    self.assertNotEqual(block, b"", received)
                    received += block
                s.sendall(b"ZZ\r\n")
                try:
                    while block := s.recv(65536):
                        received += block
                except ConnectionResetError:
                    pass
            self.assertTrue(received.startswith(b"HTTP/1.1 200"), received)
            self.assertEqual(heads_in(received), 1, received)
            self.assertFalse(received.endswith(b"\r\n0\r\n\r\n"), "it ends as if it were whole")

    def test_length_and_chunked_together(self):
        self.assert_refused(b"Content-Length: 5\r\nTransfer-Encoding: chunked",
                            b"0\r\n\r\n" + SECOND)
        self.assert_refused(b"Transfer-Encoding: chunked\r\nContent-Length: 5",
                            b"0\r\n\r\n" + SECOND)

    def test_two_lengths(self):
        self.assert_refused(b"Content-Length: 0\r\nContent-Length: %d" % len(SECOND), SECOND)
        self.assert_refused(b"Content-Length: %d\r\nContent-Length: 0" % len(SECOND), SECOND)

    def test_odd_lengths(self):
        for value in (b"+5", b"-5", b"5, 5", b"0x5", b"5 5", b"", b"99999999999999999999", b"5;a"):
            self.assert_refused(b"Content-Length: " + value, b"hello")

    def test_a_space_before_the_colon(self):
        self.assert_refused(b"Content-Length : 5", b"hello")
        self.assert_refused(b"Transfer-Encoding : chunked", b"0\r\n\r\n")

    def test_odd_transfer_encodings(self):
        for value in (b"chunked, identity", b"xchunked", b"identity", b"chunked, chunked",
                      b"gzip, chunked", b"\x0bchunked"):
            self.assert_refused(b"Transfer-Encoding: " + value, b"0\r\n\r\n" + SECOND)

    def test_two_transfer_encodings(self):
        self.assert_refused(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                            b"0\r\n\r\n" + SECOND)

    def test_folded_and_bare_line_ends(self):
        for head in (b"X-A: b\r\n c: d\r\nContent-Length: 0", b"X-A: b\nContent-Length: 0",
                     b"X-A: b\rContent-Length: 5", b"X-A: b\x00c\r\nContent-Length: 0",
                     b"Transfer-Encoding: chunked\x00\r\nContent-Length: 0"):
            self.assert_one_reply_at_most(head)

    def test_bad_chunks(self):
        for body in (b"ffffffffffffffff\r\n", b"-1\r\nx\r\n", b"0x1\r\nx\r\n0\r\n\r\n",
                     b"zz\r\n", b"5\r\nhelloXX0\r\n\r\n", b"1;" + b"e" * 70000 + b"\r\nx\r\n"):
            self.assert_one_reply_at_most(b"Transfer-Encoding: chunked", body + SECOND)

    def test_pipelined_requests_are_answered_in_order(self):
        one = b"GET /function/web/status/201 HTTP/1.1\r\nHost: x\r\n\r\n"
        two = b"GET /function/web/status/202 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        received, closed = raw_exchange(self.daemon.port, one + two, 5)
        self.assertTrue(closed)
        self.assertLess(received.index(b"HTTP/1.1 201"), received.index(b"HTTP/1.1 202"))

    def test_old_and_odd_request_lines(self):
        for line in (b"GET /function/web\r\n\r\n", b"GET /function/web HTTP/0.9\r\n\r\n",
                     b"GET  /function/web HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /function/web HTTP/2.0\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
                     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET http://x/function/web HTTP/1.1\r\n"
                     b"Host: y\r\nConnection: close\r\n\r\n"):
            received, _ = raw_exchange(self.daemon.port, line, 3)
            self.assertLessEqual(heads_in(received), 1, received)
        self.assertNotIn(b"<html", received)

    def test_http_1_0_works(self):
        received, closed = raw_exchange(self.daemon.port, b"GET /function/web/ HTTP/1.0\r\n\r\n", 5)
        self.assertTrue(closed)
        self.assertIn(b" 200 ", received.splitlines()[0])
        self.assertTrue(received.endswith(b"flea-sized sandbox!\n"))

    def test_huge_heads_are_refused(self):
        for data in (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"v" * (1 << 20) + b"\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10000 + b"\r\n"):
            received, closed = raw_exchange(self.daemon.port, data, 5)
            self.assertTrue(closed)
            self.assertIn(received.split()[1], (b"414", b"431"), received[:200])
            self.assertEqual(heads_in(received), 1, received)
            self.assertNotIn(b"<html", received)

    def test_replies_of_a_function_cannot_split(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
        for path in ("/bad/length", "/bad/header", "/", "/status/204", "/"):
            connection.request("GET", "/function/web" + path)
            response = connection.getresponse()
            response.read()
            if path in ("/", "/status/204"):
                self.assertIn(response.status, (200, 204))
        connection.close()


class Slow(Case):
    flags = ("--header-timeout", "2s", "--body-timeout", "2s", "--max-connections", "400")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def test_who_is_too_slow_is_told_so(self):
        self.daemon.deploy_http()
        key = self.daemon.key.encode()
        for data, json_wanted in (
                (b"GET /heal", False), (b"GET /healthz HTTP/1.1\r\nHos", False),
                (b"POST /function/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
                 False),
                (b"POST /function/web/status/204 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
                 False),
                (b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key
                 + b"\r\nContent-Length: 9\r\n\r\nabc", True)):
            received, closed = raw_exchange(self.daemon.port, data, 8)
            self.assertTrue(closed, data)
            if b"/function/web" in data and b" 204 " in received[:15]:
                continue  # the function answered before its body was there
            self.assertTrue(received.startswith(b"HTTP/1.1 408"), (data, received))
            self.assertEqual(heads_in(received), 1, received)
            self.assertIn(b"Connection: close", received)
            self.assertEqual(b"request_timeout" in received, json_wanted, received)
            self.assertIn(b"send it again", received)

    def test_dripping_headers_are_cut_while_others_are_served(self):
        started, slowest, sockets = time.monotonic(), 0.0, []
        for _ in range(100):  # one address may hold half of all connections
            sockets.append(self.daemon.connect())
            sockets[-1].sendall(b"GET /healthz HTTP/1.1\r\n")
        alive = set(sockets)
        while alive and time.monotonic() - started < 12:
            for s in list(alive):
                try:
                    s.sendall(b"X")
                    s.setblocking(False)
                    if s.recv(100) == b"":
                        alive.discard(s)
                except BlockingIOError:
                    s.setblocking(True)
                except OSError:
                    alive.discard(s)
            before = time.monotonic()
            self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.3)
        for s in sockets:
            s.close()
        self.assertFalse(alive, f"{len(alive)} drippers are still connected")
        self.assertLess(time.monotonic() - started, 8)
        self.assertLess(slowest, 0.5)

    def test_a_flood_of_idle_connections_is_bounded(self):
        sockets = []
        try:
            for _ in range(600):
                sockets.append(socket.create_connection(("127.0.0.1", self.daemon.port), 2))
        except OSError:
            pass
        import leaks
        self.assertLess(len(leaks.open_fds(self.daemon.daemon_pid())), 700)
        for s in sockets:
            s.close()
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")

    def ask_from(self, address, sockets):
        """/healthz on a connection that stays open; True when the reply is 200."""
        sockets.append(socket.create_connection(("127.0.0.1", self.daemon.port), 5, (address, 0)))
        sockets[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return sockets[-1].recv(1000).startswith(b"HTTP/1.1 200")

    def test_idle_connections_make_room_for_others(self):
        sockets = []
        try:
            for address, count in (("127.0.0.1", 500), ("127.0.0.2", 100)):
                for n in range(count):
                    self.assertTrue(self.ask_from(address, sockets), f"{n} of {address}")
            self.assertTrue(self.ask_from("127.0.0.3", sockets))
            self.assertTrue(self.ask_from("127.0.0.1", sockets))
            sockets[500].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(sockets[500].recv(1000).startswith(b"HTTP/1.1 200"),
                            "the address with fewer connections lost one")
        finally:
            for s in sockets:
                s.close()

    def test_many_clients_at_once_all_get_an_answer(self):
        replies = in_parallel(100, lambda n: self.daemon.request("GET", "/healthz"))
        self.assertEqual({getattr(r, "status", repr(r)) for r in replies}, {200})


class Greedy(Case):
    """Addresses that hold all they can get, each with a call under way, which is never cut."""

    flags = ("--max-connections", "100")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe("slow", limits={"timeout": "60s"},
                                scale={"max": 1, "queue": 100, "queue_wait": "60s"})

    def call_from(self, address, sockets):
        """A call that stays open; False when there was no room for it."""
        sockets.append(socket.create_connection(("127.0.0.1", self.daemon.port), 5, (address, 0)))
        before = self.under_way()
        sockets[-1].sendall(b"POST /function/slow HTTP/1.1\r\nHost: x\r\n"
                            b"Content-Length: 8\r\n\r\nsleep 60")
        refused = lambda: bool(select.select([sockets[-1]], [], [], 0)[0])
        wait_until(lambda: refused() or self.under_way() > before, 30, "taken or refused")
        return not refused()

    def under_way(self):
        function = self.daemon.api("GET", "/v1/functions/slow").json()
        return function["queued"] + sum(i["open_calls"] for i in function["instances"])

    def test_addresses_that_hold_all_they_can_get_leave_room_for_somebody_new(self):
        sockets, taken = [], []
        try:
            for n in range(3):
                taken.append(0)
                while self.call_from(f"127.0.0.{n + 2}", sockets):
                    taken[-1] += 1
            self.assertTrue(73 <= taken[0] <= 75, taken)  # three quarters; some are the test's own
            self.assertTrue(all(more > less for more, less in zip(taken, taken[1:])), taken)
            self.assertGreater(taken[-1], 0)
            self.assertEqual(self.daemon.request("GET", "/healthz").status, 200)
        finally:
            for s in sockets:
                s.close()


class Leaving(unittest.TestCase):
    def test_a_client_that_left_behind_a_full_buffer_does_not_hold_up_the_stop(self):
        with Daemon() as daemon:
            daemon.deploy_http()
            with daemon.connect() as client:
                client.sendall(b"POST /function/web/echo HTTP/1.1\r\nHost: x\r\n"
                               b"Transfer-Encoding: chunked\r\n\r\n5;" + b"e" * 65536)
                time.sleep(0.2)
            before = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - before, 5)


if __name__ == "__main__":
    unittest.main()
