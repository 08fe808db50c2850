"""Connections whose protocol is switched (WebSocket and others): bytes both ways, and every end."""

import hashlib
import os
import re
import socket
import struct
import threading
import time
import unittest

from harness import WARM, Case, raw_exchange, wait_until


class Tunnel:
    """A request for another protocol on a connection of its own, and what follows."""

    def __init__(self, daemon, path="/upgrade/websocket", name="web", protocol="websocket",
                 behind=b"", version="1.1", connection="keep-alive, Upgrade"):
        self.socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        self.socket.sendall(
            f"GET /function/{name}{path} HTTP/{version}\r\nHost: board\r\n"
            f"Connection: {connection}\r\nUpgrade: {protocol}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode() + behind)
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head.decode()
        self.status = int(self.head.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def more(self):
        block = self.socket.recv(65536)
        if not block:
            raise EOFError(self.buffer)
        self.buffer += block

    def send(self, data):
        self.socket.sendall(data)

    def read(self, size):
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def rest(self):
        try:
            while True:
                self.more()
        except (EOFError, ConnectionResetError):
            return self.buffer


def frame(text):
    """One of WebSocket's, masked as a client's must be."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))
    return struct.pack(">BB", 0x81, 0x80 | len(text)) + mask + masked


class Upgrade(Case):
    flags = ("--drain-timeout", "2s")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http(limits={"timeout": "60s"})

    def stats(self, name="web"):
        return self.daemon.call(name, path="/stats").json()

    def test_bytes_go_both_ways_as_they_come(self):
        with Tunnel(self.daemon) as tunnel:
            self.assertEqual(tunnel.status, 101)
            lines = tunnel.head.lower().splitlines()
            for line in ("connection: upgrade", "upgrade: websocket"):
                self.assertIn(line, lines)
            self.assertFalse([li for li in lines if li.startswith(("content-length", "transfer"))])
            self.assertTrue([li for li in lines if li.startswith("x-call-id: ")])
            for text in (b"one", b"", b"three" * 20):
                sent = frame(text)
                tunnel.send(sent)
                self.assertEqual(tunnel.read(len(sent)), sent)

    def test_what_was_sent_behind_the_request_comes_first(self):
        with Tunnel(self.daemon, behind=b"early,") as tunnel:
            tunnel.send(b"late")
            self.assertEqual(tunnel.read(10), b"early,late")

    def test_the_functions_end_is_the_clients(self):
        with Tunnel(self.daemon) as tunnel:
            tunnel.send(b"bye")
            self.assertEqual(tunnel.rest(), b"bye")
        wait_until(lambda: self.daemon.open_calls("web") == 0, what="the call is over")

    def test_a_client_that_has_ended_hears_the_rest(self):
        with Tunnel(self.daemon) as tunnel:
            tunnel.send(b"last words")
            tunnel.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(tunnel.rest(), b"last words")

    def test_a_client_that_is_gone_takes_its_call_along(self):
        for how in (b"", struct.pack("ii", 1, 0)):  # by FIN, by RST
            with Tunnel(self.daemon) as tunnel:
                self.assertEqual(self.daemon.open_calls("web"), 1)
                if how:
                    tunnel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
            wait_until(lambda: self.daemon.open_calls("web") == 0, what="the call is over")
        wait_until(lambda: self.stats()["open"] <= 2, what="the function's connections are closed")

    def test_a_flood_arrives_whole(self):
        block = os.urandom(1 << 16)
        blocks = 256
        expected = hashlib.sha256(block * blocks).digest()
        with Tunnel(self.daemon) as tunnel:
            def write():
                for _ in range(blocks):
                    tunnel.send(block)
            writer = threading.Thread(target=write)
            writer.start()
            digest = hashlib.sha256()
            for _ in range(blocks):
                digest.update(tunnel.read(len(block)))
            writer.join()
            self.assertEqual(digest.digest(), expected)

    def test_who_does_not_read_stops_the_other(self):
        with Tunnel(self.daemon) as tunnel:
            tunnel.socket.settimeout(3)
            sent = 0
            with self.assertRaises(socket.timeout):
                while sent < 1 << 28:
                    sent += tunnel.socket.send(b"x" * 65536)
            self.assertEqual(self.daemon.call("web").status, 200, "the others go on")

    def test_a_refusal_is_a_usual_reply(self):
        with Tunnel(self.daemon, path="/status/403") as tunnel:
            self.assertEqual((tunnel.status, tunnel.read(9)), (403, b"as asked\n"))
            self.assertNotIn("upgrade", tunnel.head.lower())
            tunnel.send(b"GET /healthz HTTP/1.1\r\nHost: board\r\n\r\n")
            self.assertTrue(tunnel.read(12).startswith(b"HTTP/1.1 200"))

    def test_a_switch_that_was_not_asked_for_is_a_bad_response(self):
        for path, options in (("/upgrade/other", {}),
                              ("/upgrade/websocket", {"connection": "keep-alive"}),
                              ("/upgrade/websocket", {"version": "1.0"}),
                              ("/upgrade/h2c", {"protocol": "h2c"}),
                              ("/upgrade/two", {"protocol": "one, two"})):
            with Tunnel(self.daemon, path=path, **options) as tunnel:
                self.assertEqual(tunnel.status, 502, (path, options))
                self.assertIn("X-Pulga-Outcome: bad-response", tunnel.head)

    def test_what_may_not_switch_is_a_usual_request(self):
        """The function hears of no other protocol, and a body is a body."""
        behind = b"GET /function/web/exit/9 HTTP/1.1\r\nHost: x\r\n\r\n"
        length = f"Content-Length: {len(behind)}\r\n"
        for method, version, upgrade, fields, body in (
                ("GET", "1.1", "websocket", "Connection: keep-alive\r\n", b""),
                ("GET", "1.0", "websocket", "Connection: Upgrade\r\n", b""),
                ("GET", "1.1", "h2c", "Connection: Upgrade, HTTP2-Settings\r\n", b""),
                ("GET", "1.1", "websocket", "Connection: Upgrade\r\nUpgrade: x\r\n", b""),
                ("POST", "1.1", "websocket", "Connection: Upgrade\r\n" + length, behind),
                ("GET", "1.1", "websocket", "Connection: Upgrade\r\n" + length, behind),
                ("POST", "1.1", "websocket",
                 "Connection: Upgrade\r\nTransfer-Encoding: chunked\r\n",
                 b"%x\r\n%s\r\n0\r\n\r\n" % (len(behind), behind))):
            request = (f"{method} /function/web/headers HTTP/{version}\r\nHost: x\r\n"
                       f"Upgrade: {upgrade}\r\n{fields}\r\n").encode() + body
            last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            received, _ = raw_exchange(self.daemon.port, request + last, 30)
            self.assertTrue(received.startswith(b"HTTP/1.1 200"), (request, received))
            self.assertNotIn(b"\r\nupgrade:", received.lower(), request)
            # A reply that came before the end of the body was read closes, as one to HTTP/1.0.
            closes = b"\r\nconnection: close" in received.lower().split(b"\r\n\r\n")[0]
            self.assertTrue(closes or version == "1.1", received)
            self.assertEqual(received.count(b"HTTP/1.1 200"), 1 if closes else 2, received)
        self.assertIn(self.daemon.call("web").headers["x-pulga-start"], WARM,
                      "the request in a body was executed")

    def test_what_follows_a_refused_switch_is_a_request(self):
        behind = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with Tunnel(self.daemon, path="/status/403", behind=behind) as tunnel:
            self.assertEqual(tunnel.status, 403)
            self.assertIn(b"HTTP/1.1 200", tunnel.rest())

    def test_programs_speak_no_other_protocol(self):
        self.daemon.import_sample("echo")
        self.daemon.put("echo", {"image": "echo:1", "mode": "exec"})
        with Tunnel(self.daemon, name="echo", path="") as tunnel:
            self.assertEqual(tunnel.status, 501)
            self.assertIn("X-Pulga-Outcome: rejected:upgrade", tunnel.head)
        with Tunnel(self.daemon, name="echo", path="", protocol="h2c") as tunnel:
            self.assertEqual(tunnel.status, 200)


class Limits(Case):
    flags = ("--drain-timeout", "2s")

    def test_it_is_one_running_call(self):
        self.daemon.deploy_http("one", scale={"max": 1, "concurrency": 1, "queue": 0})
        with Tunnel(self.daemon, name="one") as tunnel:
            self.assertEqual(self.daemon.call("one").status, 429)
            tunnel.send(b"bye")
            tunnel.rest()
        wait_until(lambda: self.daemon.call("one").status == 200, what="there is room again")

    def test_its_instance_is_kept(self):
        self.daemon.deploy_http("kept", scale={"max": 1, "freeze_after": "0s", "idle": "1s"})
        with Tunnel(self.daemon, name="kept") as tunnel:
            time.sleep(2.5)
            status = self.daemon.api("GET", "/v1/functions/kept").json()
            self.assertEqual([i["step"] for i in status["instances"]], ["busy"], status)
            tunnel.send(b"still here")
            self.assertEqual(tunnel.read(10), b"still here")

    def test_silence_ends_it_and_speech_does_not(self):
        self.daemon.deploy_http("shy", limits={"timeout": "2s"})
        with Tunnel(self.daemon, name="shy") as tunnel:
            for _ in range(8):
                tunnel.send(b"x")
                self.assertEqual(tunnel.read(1), b"x")
                time.sleep(0.5)
            self.assertEqual(tunnel.rest(), b"")
        status = self.daemon.api("GET", "/v1/functions/shy").json()
        self.assertEqual(len(status["instances"]), 1, "it is not the server's fault")

    def test_a_removed_function_takes_its_connections_along(self):
        self.daemon.deploy_http("gone", limits={"timeout": "60s"})
        with Tunnel(self.daemon, name="gone") as tunnel:
            self.assertLess(self.daemon.api("DELETE", "/v1/functions/gone").status, 300)
            self.assertEqual(tunnel.rest(), b"")

    def test_a_replaced_function_takes_its_connections_along(self):
        brief = {"limits": {"timeout": "3s", "start_timeout": "4s"}, "scale": {"queue_wait": "1s"}}
        self.daemon.deploy_http("next", **brief)
        with Tunnel(self.daemon, name="next") as tunnel:
            self.daemon.deploy_http("next", env={"NEW": "1"}, **brief)
            self.assertEqual(self.daemon.call("next").status, 200)
            tunnel.send(b"still here")
            self.assertEqual(tunnel.read(10), b"still here", "it has the time of its drain")

            def ended():
                try:
                    tunnel.send(b"x")
                    return not tunnel.socket.recv(1)
                except ConnectionError:
                    return True
            wait_until(ended, 60, "the end of the drain")
        wait_until(lambda: self.daemon.open_calls("next") == 0, what="the call is over")

    def test_the_gateways_metrics_end_with_the_switch(self):
        self.daemon.deploy_http("long", scale={"max": 1, "concurrency": 100})
        tunnels = [Tunnel(self.daemon, name="long") for _ in range(20)]
        time.sleep(3)
        for tunnel in tunnels:
            tunnel.send(b"bye")
            self.assertEqual(tunnel.rest(), b"bye")
            tunnel.socket.close()

        def sum_of(what):
            line = r'gateway_functions_seconds_%s{code="101",[^}]*"long.openfaas-fn"} (.*)' % what
            found = re.search(line, self.daemon.api("GET", "/metrics").text)
            return float(found[1]) if found else 0
        wait_until(lambda: sum_of("count") == 20, what="all are counted")
        self.assertLess(sum_of("sum"), 20 * 3 / 2)

    def test_a_function_that_dies_takes_its_connections_along(self):
        self.daemon.deploy_http("dies", limits={"timeout": "60s"}, scale={"max": 1})
        with Tunnel(self.daemon, name="dies") as tunnel:
            self.daemon.call("dies", path="/exit/3")
            self.assertEqual(tunnel.rest(), b"")


class Slow(Case):
    flags = ("--body-timeout", "2s")

    def test_who_takes_nothing_is_cut(self):
        self.daemon.deploy_http(limits={"timeout": "600s"})
        with Tunnel(self.daemon) as tunnel:
            tunnel.socket.settimeout(3)
            with self.assertRaises(OSError):  # full at first, then reset
                while True:
                    tunnel.socket.send(b"x" * 65536)
            wait_until(lambda: self.daemon.open_calls("web") == 0, 60, "the client is cut")

    def test_who_has_nothing_to_say_is_not(self):
        self.daemon.deploy_http("quiet", limits={"timeout": "600s"})
        with Tunnel(self.daemon, name="quiet") as tunnel:
            time.sleep(5)
            tunnel.send(b"still here")
            self.assertEqual(tunnel.read(10), b"still here")


class Stop(Case):
    def test_the_daemon_does_not_wait_for_connections_without_an_end(self):
        self.daemon.deploy_http(limits={"timeout": "600s"})
        with Tunnel(self.daemon) as tunnel:
            self.assertEqual(tunnel.status, 101)
            self.daemon.stop()
            self.assertEqual(tunnel.rest(), b"")
        self.daemon.start()
        self.assertEqual(self.daemon.call("web").status, 200)


if __name__ == "__main__":
    unittest.main()
