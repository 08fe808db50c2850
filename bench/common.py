"""What every measurement uses: options, a daemon, nginx beside it, the tables, a quiet machine."""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
Row = collections.namedtuple("Row", "figure result wanted")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """`pulga serve` on a temporary data directory."""

    def __init__(self, build, *flags):
        self.bin = build / "bin"
        self.data = tempfile.mkdtemp(prefix="pulga-bench-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(self.bin / "pulga"), "serve", "--data", self.data, "--listen",
                   f"127.0.0.1:{self.port}", *flags]
        self.log = open(os.path.join(self.data + ".log"), "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(self.url + "/healthz", timeout=1).read()
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    sys.exit("the daemon did not start: " + open(self.log.name).read())
                time.sleep(0.05)

    def cli(self, *arguments, stdin=None):
        env = dict(os.environ, PULGA_URL=self.url,
                   PULGA_KEY=pathlib.Path(self.data, "admin.key").read_text().strip())
        out = subprocess.run([str(self.bin / "pulga"), *arguments], env=env, input=stdin,
                             capture_output=True)
        if out.returncode != 0:
            sys.exit(f"pulga {' '.join(arguments)}: {out.stderr.decode()}{out.stdout.decode()}")
        return out.stdout.decode()

    def get(self, path):
        return urllib.request.urlopen(self.url + path, timeout=30).read()

    def processes(self):
        """pid -> name of everything below the keeper, in every pid namespace."""
        children = collections.defaultdict(list)
        names = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            names[int(entry)] = stat[stat.index("(") + 1:stat.rindex(")")]
            children[int(stat[stat.rindex(")") + 2:].split()[1])].append(int(entry))
        found, todo = {}, [self.process.pid]
        while todo:
            pid = todo.pop()
            found[pid] = names.get(pid, "")
            todo += children[pid]
        return found

    def pin(self, processor):
        """Every thread there is; what they start later inherits it."""
        for pid in self.processes():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {processor})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.data, ignore_errors=True)
        os.unlink(self.log.name)


def run_json(command):
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def times(row):
    return f"p50 {row['p50_us']:.0f} us, p90 {row['p90_us']:.0f} us (n={row['n']})"


NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 100000000;
  upstream function {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location /stream/ {{ proxy_pass http://function/; proxy_http_version 1.1;
                  proxy_set_header Connection ""; proxy_request_buffering off;
                  client_max_body_size 0; proxy_max_temp_file_size 0; }}
    location / {{ proxy_pass http://function; proxy_http_version 1.1;
                  proxy_set_header Connection ""; }}
    location /headers/ {{ proxy_pass http://function/; proxy_http_version 1.1;
                  proxy_set_header Connection ""; proxy_set_header X-Call-Id $request_id;
                  proxy_set_header X-Start-Time $msec;
                  proxy_set_header X-Forwarded-For $remote_addr:$remote_port;
                  proxy_set_header X-Forwarded-Host $host;
                  add_header X-Call-Id $request_id; add_header X-Start-Time $msec;
                  add_header X-Pulga-Start warm; add_header X-Pulga-Outcome ok;
                  add_header Server-Timing "function;dur=$upstream_response_time"; }} }}
}}
"""


def children_of(pid):
    return [int(child) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()]


def end_contenders(processes, daemon, directory):
    for process in processes:
        process.terminate()
        process.wait()
    daemon.stop()
    shutil.rmtree(directory)
    os.sched_setaffinity(0, range(os.cpu_count()))


@contextlib.contextmanager
def http_contenders(build):
    """A warm http function: its server directly, through us, and through nginx; with the client
    all on one core. Yields {name: "PORT/PATH"}, and the pids whose work the two proxies are."""
    upstream, nginx_port = free_port(), free_port()
    daemon = Daemon(build)
    daemon.pin(0)
    os.sched_setaffinity(0, {0})
    server = subprocess.Popen([build / "bin" / "rootfs" / "http-hello"],
                              env={"PORT": str(upstream), "PATH": "/"}, stdout=subprocess.DEVNULL)
    directory = tempfile.mkdtemp(prefix="pulga-nginx-")
    pathlib.Path(directory, "nginx.conf").write_text(
        NGINX.format(dir=directory, upstream=upstream, port=nginx_port))
    nginx = subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-p", directory],
                             stderr=subprocess.DEVNULL)
    try:
        daemon.cli("deploy", "web", "--image", str(build / "images" / "http-hello.tar"),
                   "--mode", "http", "--cpu", "2", "--max", "1", "--concurrency", "256",
                   "--min", "1")
        time.sleep(1)
        daemon.get("/function/web/")
        yield {"direct": f"{upstream}/", "pulga": f"{daemon.port}/function/web/",
               "nginx": f"{nginx_port}/", "nginx, our headers": f"{nginx_port}/headers/"}, \
            {"pulga": [pid for pid, name in daemon.processes().items() if name == "pulga"],
             "nginx": [nginx.pid, *children_of(nginx.pid)]}
    finally:
        end_contenders((server, nginx), daemon, directory)


def smaps_kib(pid, field):
    try:
        text = pathlib.Path("/proc", str(pid), "smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+)", text, re.M)
    return int(found.group(1)) if found else 0


def meminfo():
    return {line.split(":")[0]: int(line.split()[1])
            for line in pathlib.Path("/proc/meminfo").read_text().splitlines()}


def kernel_and_user_kib(daemon):
    info = meminfo()
    kernel = info["SUnreclaim"] + info["SReclaimable"] + info["KernelStack"] + info["PageTables"] \
        + info["Percpu"]
    user = sum(smaps_kib(pid, "Pss") for pid in daemon.processes())
    return kernel, user


def table(rows):
    lines = ["| figure | measured | wanted |", "| --- | --- | --- |"]
    lines += [f"| {r.figure} | {r.result} | {r.wanted} |" for r in rows]
    return "\n".join(lines)


def rows_of(text):
    """The rows of a table in what somebody printed."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines[2:]]


def write_table(name, found):
    """Into bench/figures.md, in place of the one between the comments of that name."""
    figures = ROOT / "bench" / "figures.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, rest = figures.read_text().split(begin)
    figures.write_text(f"{head}{begin}{found}\n{end}{rest.split(end)[1]}")


def busy_processors(seconds=1.0):
    """How many processors' worth of work the machine has without us."""
    def busy():
        fields = pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields)
        return user + nice + system + irq + softirq + steal
    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def require_quiet(allow_busy):
    """The load average remembers a minute of the past, so that it is a warning; work going on now
    is a refusal."""
    now, average = busy_processors(), os.getloadavg()[0]
    if now <= 0.3 and average <= 1.5:
        return
    what = f"{now:.2f} processors are busy and the load average is {average:.2f}"
    if now > 0.3 and not allow_busy:
        sys.exit(f"bench: {what}: wait until the machine is quiet, or give --busy")
    print(f"bench: WARNING: {what}; wall times below may be wrong", file=sys.stderr)


def bench_options(doc):
    """The parser of a measurement whose module says that, with what all of them take."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="put the tables into bench/figures.md")
    parser.add_argument("--busy", action="store_true", help="measure although others work")
    return parser


def section_options(doc, default_sections):
    parser = bench_options(doc)
    parser.add_argument("--only", default=",".join(default_sections), metavar="SECTION,...")
    return parser


def chosen_sections(parser, sections):
    """The options, and which of the sections --only names; a name of none ends it with status 2."""
    options = parser.parse_args()
    options.build = options.build.resolve()
    chosen = options.only.split(",")
    if set(chosen) - set(sections):
        parser.error(f"--only knows {', '.join(sections)}")
    require_quiet(options.busy)
    return options, chosen


def run_sections(parser, sections, prefix=""):
    """Measures what --only names. `sections`: name -> function from the options to rows; in
    bench/figures.md its table has the name with the prefix."""
    options, chosen = chosen_sections(parser, sections)
    for name in chosen:
        found = table(sections[name](options))
        print(f"{name}\n{found}", flush=True)
        if options.write:
            write_table(prefix + name, found)
