#!/usr/bin/env python3
"""Measures outbound network of a function beside a plain veth pair and writes bench/figures.md.

    bench/network_bench.py [--build build/release] [--rounds 9] [--write] [--busy]

Needs root and a release build. Everything happens in network namespaces of its own (the board of
the e2e tests). Contenders take turns: the same client talks to the same server across the same
veth pair, once from an egress function's namespace through the router's relay, once directly.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "bench"), str(ROOT / "tests" / "e2e")]
# The folders must be on the path first.
from common import Row, bench_options, require_quiet, table, write_table  # noqa: E402

MEGABYTES, ECHOES, CONNECTS = 400, 2000, 200
PORT = 7100

# Serves one connection after the other: the first byte says what is wanted.
SERVER = f"""
import socket
chunk = bytearray(1 << 20)
with socket.create_server(("0.0.0.0", {PORT}), backlog=64) as server:
    print("ready", flush=True)
    while True:
        with server.accept()[0] as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wanted = c.recv(1)
            if wanted == b"o":  # out: takes it all
                while c.recv_into(chunk):
                    pass
                c.sendall(b".")
            elif wanted == b"i":  # in: gives it all
                for _ in range({MEGABYTES}):
                    c.sendall(chunk)
            elif wanted == b"e":
                while c.recv_into(chunk):
                    c.send(b".")
"""

CLIENT = f"""
import json, socket, sys, time
def connection(kind):
    c = socket.create_connection((sys.argv[1], {PORT}))
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    c.send(kind)
    return c
def lapse(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
chunk = bytearray(1 << 20)
def push():
    with connection(b"o") as c:
        for _ in range({MEGABYTES}):
            c.sendall(chunk)
        c.shutdown(socket.SHUT_WR)
        c.recv(1)
def pull():
    with connection(b"i") as c:
        while c.recv_into(chunk):
            pass
def connect():
    with connection(b"e") as c:
        c.send(b"?")
        c.recv(1)
out = {{"push": lapse(push), "pull": lapse(pull)}}
with connection(b"e") as c:
    def echo():
        c.send(b"?")
        c.recv(1)
    out["echo"] = [lapse(echo) for _ in range({ECHOES})]
out["connect"] = [lapse(connect) for _ in range({CONNECTS})]
print(json.dumps(out))
"""


def run_client(prefix, address):
    done = subprocess.run([*prefix, sys.executable, "-c", CLIENT, address], check=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def measure(contenders, address, rounds):
    """name -> what each round's client said; one round to warm up is left out."""
    found = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, prefix in contenders.items():
            said = run_client(prefix, address)
            if number > 0:
                found[name].append(said)
    return found


def rows_of(found):
    relay, plain = found["relay"], found["plain"]
    rows = []
    for key, what in (("push", "bulk TCP out of a function"), ("pull", "bulk TCP into a function")):
        speeds = {name: [MEGABYTES * 1.048576 / said[key] for said in rounds]
                  for name, rounds in found.items()}
        share = statistics.median(a / b for a, b in zip(speeds["relay"], speeds["plain"]))
        rows.append(Row(f"{what}, share of a plain veth pair",
                        f"{share * 100:.0f} %; {statistics.median(speeds['relay']):.0f} against "
                        f"{statistics.median(speeds['plain']):.0f} MB/s", ""))
    for key, what in (("echo", "round trip of one byte"),
                      ("connect", "connect, and a round trip")):
        def p50(rounds, key=key):
            return statistics.median(t for said in rounds for t in said[key]) * 1e6
        ratio = statistics.median(statistics.median(a[key]) / statistics.median(b[key])
                                  for a, b in zip(relay, plain))
        rows.append(Row(f"{what}, against a plain veth pair",
                        f"{ratio:.2f} x; p50 {p50(relay):.0f} against {p50(plain):.0f} us", ""))
    return rows


def network_figures(rounds):
    # Where our programs are is read when these are imported.
    from board import WEB, Board
    from harness import Daemon, wait_until
    board = Board()
    server = subprocess.Popen(["nsenter", "-t", str(board.far.pid), "-n", sys.executable, "-c",
                               SERVER], stdout=subprocess.PIPE)
    try:
        if server.stdout.readline() != b"ready\n":
            sys.exit("the server did not start")
        with Daemon() as daemon:
            daemon.deploy_probe("out", network={"mode": "egress"}, limits={"timeout": "600s"})
            with daemon.connect() as call:  # closing it ends the call
                call.sendall(b"POST /function/out HTTP/1.1\r\nHost: x\r\n"
                             b"Content-Length: 9\r\n\r\nsleep 600")
                pid = wait_until(lambda: daemon.process_named("probe"), what="the function")
                inside = ["nsenter", "-t", str(pid), "-n"]
                return rows_of(measure({"relay": inside, "plain": []}, WEB, rounds))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        board.close()


def main():
    parser = bench_options(__doc__)
    parser.add_argument("--rounds", default=9, type=int)
    options = parser.parse_args()
    build = options.build.resolve()
    os.environ["PULGA_BIN_DIR"] = str(build / "bin")
    os.environ["PULGA_IMAGES_DIR"] = str(build / "images")
    require_quiet(options.busy)
    found = table(network_figures(options.rounds))
    print(found)
    if options.write:
        write_table("network", found)


if __name__ == "__main__":
    main()
