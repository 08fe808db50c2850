"""Plays everything beyond the board: web servers on port 80 and 8443, a datagram echo on 9000, a
resolver on 53; on 7777 somebody who accepts and then neither reads nor says anything, and on 7778
one who answers and hangs up while he is still spoken to; on every address of its namespace. Started
by board.py."""

import http.server
import json
import os
import resource
import socket
import socketserver
import struct
import sys
import threading

LAN, NAMES, ASKED = sys.argv[1:4]


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"web {self.connection.getsockname()[0]} for {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        left = size
        while left > 0:
            left -= len(self.rfile.read(min(left, 65536)))
        text = f"took {size}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def echo():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_IP, 8, 1)  # IP_PKTINFO: answer from where it came to
        s.bind(("0.0.0.0", 9000))
        while True:
            data, extra, _, peer = s.recvmsg(65536, 256)
            s.sendmsg([b"echo " + data], extra, 0, peer)


def deaf():
    held = []
    with socket.create_server(("0.0.0.0", 7777), backlog=4096) as server:
        while True:
            held.append(server.accept()[0])


def curt():
    with socket.create_server(("0.0.0.0", 7778)) as server:
        while True:
            with server.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(b"a" * 20000)  # more has come, unread: the close is a reset


def answer(question):
    """One DNS message to one DNS message; None: says nothing."""
    with open(NAMES) as names:
        table = json.load(names)
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    name = ".".join(labels).lower()
    kind = struct.unpack(">H", question[at + 1:at + 3])[0]
    with open(ASKED, "a") as log:
        log.write(f"{name} {kind}\n")
    entry = table.get(name)
    if entry is not None and entry.get("silent"):
        return None
    records, code = [], 0 if entry else 3
    pointer = b"\xc0\x0c"
    if entry and "alias" in entry:
        target = b"".join(bytes([len(part)]) + part.encode()
                          for part in entry["alias"].split(".")) + b"\0"
        records.append(pointer + struct.pack(">HHIH", 5, 1, 60, len(target)) + target)
        pointer = target
        entry = table.get(entry["alias"], {})
    if entry and kind == 1:
        for address in entry.get("addresses", []):
            records.append(pointer + struct.pack(">HHIH", 1, 1, entry.get("ttl", 60), 4)
                           + socket.inet_aton(address))
    head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    return head + question[12:at + 5] + b"".join(records)


def dns_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((LAN, 53))
        while True:
            question, peer = s.recvfrom(4096)
            reply = answer(question)
            if reply is not None and len(reply) > 512:
                end = question.index(b"\0", 12) + 5
                reply = reply[:2] + b"\x83\x80" + reply[4:6] + b"\0" * 6 + question[12:end]
            if reply is not None:
                s.sendto(reply, peer)


class DnsTcp(socketserver.BaseRequestHandler):
    def handle(self):
        head = self.request.recv(2, socket.MSG_WAITALL)
        if len(head) < 2:
            return
        question = self.request.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
        reply = answer(question)
        if reply is not None:
            self.request.sendall(struct.pack(">H", len(reply)) + reply)


def main():
    sys.stdin.readline()  # the addresses are there now
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    servers = [Server(("0.0.0.0", 80), Web), Server(("0.0.0.0", 8443), Web),
               socketserver.ThreadingTCPServer((LAN, 53), DnsTcp)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    for loop in (echo, dns_udp, deaf, curt):
        threading.Thread(target=loop, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


main()
