"""S57: the runtimes this machine has do their ordinary work in a sandbox: threads, children, a
socket server and its client, names, files in /tmp. Each image is made of the machine's files."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from harness import Case, image_archive as archive
from image_archive import Entry, Image

PYTHON = """
import concurrent.futures, http.server, socket, sqlite3, subprocess, tempfile, threading
import urllib.request
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://localhost:%d/" % server.server_port
assert urllib.request.urlopen(url).status == 200
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: n * n, range(100))) == 328350
assert subprocess.run(["/bin/sh", "-c", "echo child"], capture_output=True).stdout == b"child\\n"
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 100000)
db = sqlite3.connect("/tmp/db"); db.execute("create table t(x)"); db.commit()
print("python works")
"""
PERL = r"""
use strict; use IO::Socket::INET; use POSIX ":sys_wait_h";
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die "listen: $!";
my $pid = fork() // die "fork: $!";
if (!$pid) { my $c = $server->accept(); print $c "from the child\n"; exit 0; }
my $peer = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die;
die "no answer" unless <$peer> eq "from the child\n";
waitpid($pid, 0); die "status $?" if $?;
die "backticks" unless `/bin/sh -c 'echo child'` eq "child\n";
open(my $f, ">", "/tmp/f") or die; print $f "x" x 100000; close $f or die; print "perl works\n";
"""
SHELL = r"""
set -e; mkdir /tmp/d; cd /tmp/d; for i in 1 2 3 4 5; do (echo $i > f$i) & done; wait
test "$(cat f1 f2 f3 f4 f5 | sort | wc -l)" -eq 5; sync; mkfifo p; (echo through > p) & read x < p
test "$x" = through; echo shell works
"""
NODE = """
const http = require("http"), { Worker } = require("worker_threads"), cp = require("child_process");
const server = http.createServer((q, r) => r.end("ok")).listen(0, "127.0.0.1", () =>
  http.get({ port: server.address().port, host: "localhost" }, reply => {
    new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true })
      .on("message", n => {
        if (n !== 42 || cp.execFileSync("/bin/sh", ["-c", "echo child"]) != "child\\n") throw n;
        require("os").networkInterfaces(); console.log("node works"); process.exit(0);
      });
  }));
"""
JAVA = """
import java.net.*; import java.net.http.*; import com.sun.net.httpserver.*;
public class Works { public static void main(String[] a) throws Exception {
  HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
  s.createContext("/", e -> {
    e.sendResponseHeaders(200, 2); e.getResponseBody().write("ok".getBytes()); e.close(); });
  s.start();
  var url = URI.create("http://127.0.0.1:" + s.getAddress().getPort() + "/");
  var reply = HttpClient.newHttpClient().send(HttpRequest.newBuilder(url).build(),
                                              HttpResponse.BodyHandlers.ofString());
  Process p = new ProcessBuilder("/bin/sh", "-c", "echo child").start();
  if (!reply.body().equals("ok") || p.waitFor() != 0) throw new Exception();
  System.out.println("java works"); System.exit(0); } }
"""
PHP = r"""<?php
for ($i = 0; $i < 200000; $i++) { $a = new stdClass; $a->self = $a; }  // only the collector ends it
if (gc_collect_cycles() < 1 || gc_status()["runs"] < 1) die("no collection");
$server = stream_socket_server("tcp://127.0.0.1:0") or die("no server");
$pid = pcntl_fork();
if ($pid === 0) { fwrite(stream_socket_accept($server), "from the child\n"); exit(0); }
$peer = stream_socket_client("tcp://" . stream_socket_get_name($server, false)) or die("no client");
if (fgets($peer) !== "from the child\n") die("no answer");
pcntl_waitpid($pid, $status);
if ($status !== 0 || shell_exec("echo child") !== "child\n") die("no child");
if (gethostbyname("localhost") !== "127.0.0.1") die("no name");
file_put_contents("/tmp/f", str_repeat("x", 100000)) === 100000 or die("no file");
echo "php works\n";
"""
RUBY = r"""
require "socket"
server = TCPServer.new("127.0.0.1", 0)
Thread.new { loop { server.accept.puts "from the thread" } }
raise "no answer" unless TCPSocket.new("localhost", server.addr[1]).gets == "from the thread\n"
sums = 8.times.map { |n| Thread.new { (1..20000).map { |i| "#{i}" * n }.size } }.map(&:value)
raise "threads" unless sums.sum == 160000
GC.start; GC.compact if GC.respond_to?(:compact)
raise "no child" unless `/bin/sh -c 'echo child'` == "child\n"
pid = fork { exit 3 }; Process.wait(pid); raise "status" unless $?.exitstatus == 3
raise "no name" unless Addrinfo.getaddrinfo("localhost", 80).any?
File.write("/tmp/f", "x" * 100000); puts "ruby works"
"""
GO = r"""package main
import ("fmt"; "io"; "net"; "net/http"; "os/exec"; "runtime"; "sync")
func need(ok bool, what any) { if !ok { panic(what) } }
func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0"); need(err == nil, err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "ok") }))
	names, err := net.LookupHost("localhost"); need(err == nil && len(names) > 0, err)
	reply, err := http.Get("http://" + l.Addr().String()); need(err == nil, err)
	body, _ := io.ReadAll(reply.Body); need(string(body) == "ok", body)
	var group sync.WaitGroup
	for n := 0; n < 64; n++ { group.Add(1); go func() { defer group.Done()
		kept := [][]byte{}
		for i := 0; i < 500; i++ { kept = append(kept, make([]byte, 4096)) }
		runtime.LockOSThread(); need(len(kept) == 500, "memory") }() }
	group.Wait(); runtime.GC()
	out, err := exec.Command("/bin/sh", "-c", "echo child").Output()
	need(err == nil && string(out) == "child\n", err)
	fmt.Println("go works") }
"""
RUST = r"""
use std::{io::{Read, Write}, net::*, process::Command, thread};
fn main() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let served = thread::spawn(move || server.accept().unwrap().0.write_all(b"ok").unwrap());
    let mut said = String::new();
    TcpStream::connect(("localhost", at.port())).unwrap().read_to_string(&mut said).unwrap();
    served.join().unwrap(); assert_eq!(said, "ok");
    let all: Vec<_> =
        (0..32).map(|n| thread::spawn(move || vec![n as u8; 100_000].len())).collect();
    assert_eq!(all.into_iter().map(|t| t.join().unwrap()).sum::<usize>(), 3_200_000);
    let out = Command::new("/bin/sh").args(["-c", "echo child"]).output().unwrap();
    assert_eq!(out.stdout, b"child\n");
    std::fs::write("/tmp/f", vec![b'x'; 100_000]).unwrap(); println!("rust works");
}
"""


def libraries_of(program):
    """The files the dynamic loader would take, and the loader."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return set(re.findall(r"(/\S+)", done.stdout)) - {program + ":"}


class Tree:
    """Files of this machine as the entries of a layer, under the names they have here."""

    def __init__(self):
        self.entries = {}

    def folder(self, path):
        parts = Path(path).parts[1:]
        for i in range(1, len(parts) + 1):
            name = "/".join(parts[:i])
            self.entries.setdefault(name, Entry(name, "dir", mode=0o755))

    def put(self, name, content, mode=0o644):
        self.folder(Path(name).parent)
        self.entries[name.lstrip("/")] = Entry(name.lstrip("/"), content=content, mode=mode)

    def add(self, path):
        self.put(path, Path(path).read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)

    def program(self, path, name=None):
        self.put(name or path, Path(path).read_bytes(), 0o755)
        for library in libraries_of(path):
            self.add(library)

    def below(self, folder, skip=()):
        for at, folders, files in os.walk(folder):
            folders[:] = [f for f in folders if f not in skip]
            for file in files:
                path = os.path.join(at, file)
                if os.path.isfile(path) and not file.endswith((".a", ".pyc")):
                    self.add(path)
                    if ".so" in file:
                        for library in libraries_of(path):
                            self.add(library)

    def archive(self, tag, argv):
        order = sorted(self.entries.values(), key=lambda e: e.path)
        image = Image([tag], [archive.layer(order)], {"Entrypoint": argv})
        return archive.docker_archive([image])


class Runtimes(Case):
    memory = "1Gi"

    def runs(self, name, tree, argv, words):
        tree.program(os.path.realpath("/bin/sh"), "/bin/sh")
        tree.put("/etc/nsswitch.conf", b"hosts: files dns\n")
        self.daemon.import_archive(tree.archive(name + ":1", argv))
        self.daemon.put(name, {"image": name + ":1", "mode": "exec",
                               "limits": {"memory": self.memory, "timeout": "120s", "cpu": "0"}})
        reply = self.daemon.call(name, b"", timeout=150)
        self.assert_outcome(reply, 200, "ok")
        self.assertEqual(reply.text, words)
        self.daemon.api("DELETE", "/v1/functions/" + name)

    def machine_has(self, program):
        """Debian's own, or a skip that says so; CI has not all of them."""
        path = shutil.which(program, path="/usr/bin:/bin")
        if path is None and program in ("go", "rustc"):  # only what they make is taken
            return shutil.which(program) or print(f"runtimes: no {program} here: not tried")
        if path is None:
            print(f"runtimes: this machine has no {program}: not tried")
        return path and os.path.realpath(path)

    def test_bash_and_busybox(self):
        tools = ("mkdir", "cat", "sort", "wc", "sync", "mkfifo", "test")
        for shell in ("bash", "busybox"):
            path = self.machine_has(shell)
            if not path:
                continue
            tree = Tree()
            tree.program(path)
            argv = [path] if shell == "bash" else [path, "sh"]
            if shell == "bash":
                for tool in tools:
                    tree.program(os.path.realpath(shutil.which(tool)), "/bin/" + tool)
            else:
                for tool in tools:
                    tree.put("/bin/" + tool, b"#!" + path.encode() + b" " + tool.encode() + b"\n",
                             0o755)
            if shell == "busybox":
                text = "export PATH=/none:/bin\n" + SHELL
            else:
                text = SHELL
            tree.put("/t.sh", text.encode())
            self.runs(shell, tree, [*argv, "/t.sh"], "shell works\n")

    def test_perl(self):
        path = self.machine_has("perl")
        if path:
            tree = Tree()
            tree.program(path)
            found = subprocess.run([path, "-e", "print join qq(\\n), @INC"], capture_output=True,
                                   text=True, check=True).stdout.split("\n")
            for folder in {f for f in found if f.startswith("/usr") and os.path.isdir(f)
                           and "local" not in f and not f.endswith("perl5")}:
                tree.below(folder, skip=("unicore", "pod", "Unicode", "CPAN", "Test", "perl5db"))
            tree.put("/t.pl", PERL.encode())
            self.runs("perl", tree, [path, "/t.pl"], "perl works\n")

    def test_python(self):
        path = self.machine_has("python3")
        if path:
            tree = Tree()
            tree.program(path)
            library = Path("/usr/lib/" + Path(path).name)
            tree.below(library, skip=("test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip",
                                      "__pycache__", "distutils", "dist-packages"))
            tree.put("/t.py", PYTHON.encode())
            self.runs("python", tree, [path, "-S", "/t.py"], "python works\n")

    def test_node(self):
        path = self.machine_has("node")
        if path:
            tree = Tree()
            tree.program(path)
            if Path("/usr/share/nodejs").exists():
                tree.below("/usr/share/nodejs/acorn")
                for folder in ("cjs-module-lexer", "undici"):
                    if Path("/usr/share/nodejs", folder).exists():
                        tree.below("/usr/share/nodejs/" + folder)
            tree.put("/t.js", NODE.encode())
            self.runs("node", tree, [path, "/t.js"], "node works\n")

    def test_java(self):
        path, compiler = self.machine_has("java"), self.machine_has("javac")
        if path and compiler:
            home = Path(path).parents[1]
            with_source = self.daemon.temp / "Works.java"
            with_source.write_text(JAVA)
            subprocess.run([compiler, "-d", str(self.daemon.temp), str(with_source)], check=True)
            tree = Tree()
            tree.below(str(home), skip=("jmods", "man", "docs", "include", "legal"))
            for file in home.rglob("*"):
                if file.is_symlink() and file.resolve().is_file():
                    tree.put(str(file), file.resolve().read_bytes())
            for library in libraries_of(path):
                tree.add(library)
            for file in self.daemon.temp.glob("Works*.class"):
                tree.put("/" + file.name, file.read_bytes())
            self.runs("java", tree, [path, "-cp", "/", "Works"], "java works\n")

    def test_php(self):
        path = self.machine_has("php")
        if path:
            tree = Tree()
            tree.program(path)
            tree.put("/t.php", PHP.encode())
            argv = [path, "-n", "-d", "display_startup_errors=0", "/t.php"]
            self.runs("php", tree, argv, "php works\n")

    def test_ruby(self):
        path = self.machine_has("ruby")
        if path:
            tree = Tree()
            tree.program(path)
            found = subprocess.run([path, "--disable-gems", "-e", "puts $:"], capture_output=True,
                                   text=True, check=True).stdout.split()
            for folder in {f for f in found if f.startswith("/usr/lib") and os.path.isdir(f)}:
                tree.below(folder, skip=("bundler", "irb", "rdoc", "rubygems", "vendor_ruby"))
            tree.put("/t.rb", RUBY.encode())
            self.runs("ruby", tree, [path, "--disable-gems", "/t.rb"], "ruby works\n")

    def built(self, name, text, command):
        """What a compiler makes of `text`, alone in its image: a program without libraries."""
        source, program = self.daemon.temp / name, self.daemon.temp / "works"
        source.write_text(text)
        own = {"GOCACHE": str(self.daemon.temp / "go"), "CGO_ENABLED": "0"}
        done = subprocess.run([*command, str(program), str(source)], capture_output=True,
                              check=False, env={**os.environ, **own}, cwd=self.daemon.temp)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        tree = Tree()
        tree.program(str(program), "/works")
        return tree

    def test_go(self):
        path = self.machine_has("go")
        if path:
            tree = self.built("works.go", GO, [path, "build", "-o"])
            self.runs("go", tree, ["/works"], "go works\n")

    def test_rust(self):
        path = self.machine_has("rustc")
        if path:
            static = ["-C", "target-feature=+crt-static"]
            tree = self.built("works.rs", RUST, [path, "-O", *static, "-o"])
            self.runs("rust", tree, ["/works"], "rust works\n")


if __name__ == "__main__":
    unittest.main()
