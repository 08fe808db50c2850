#!/usr/bin/env python3
"""How long images take to import, beside `tar -x`, hashing, docker, podman, skopeo and umoci.

usage: import_bench.py [--build DIR] [--rounds N] [--only tar,peers,again,one,memory] [--keep DIR]
                       [--write] [--busy]

All of it happens below one temporary directory (TMPDIR), so on one disk. Needs root.
"""
import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import hashlib

from common import Daemon, Row, chosen_sections, section_options, smaps_kib, table, write_table
from peers import LeftOut, dockerd

LAYERS = 15
TOTAL = 300 << 20


def make_layer(number, size):
    """A tar of files with the sizes of a distribution's packages; the same every time."""
    dice = random.Random(number)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, kind, content=b"", mode=0o755):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.mtime = kind, mode, len(content), 1700000000
            tar.addfile(info, io.BytesIO(content))
        top = f"usr/share/part{number}"
        for name in ("usr", "usr/share", top):
            add(name, tarfile.DIRTYPE)
        written = count = 0
        while written < size:
            if count % 40 == 0:
                folder = f"{top}/d{count // 40}"
                add(folder, tarfile.DIRTYPE)
            length = min(int(dice.lognormvariate(9.2, 1.9)), 16 << 20, size - written)
            add(f"{folder}/f{count}", tarfile.REGTYPE, dice.randbytes(length), 0o644)
            written += length
            count += 1
    return out.getvalue(), count


def make_archive(path, changed=None):
    """What `docker save` writes since 25: blobs by digest, documents last. `changed`: the number of
    a layer with other content."""
    blobs, diff_ids, files = {}, [], 0
    for number in range(LAYERS):
        size = TOTAL * (6 if number == 0 else 1) // (LAYERS + 5)
        data, count = make_layer(number if number != changed else number + 1000, size)
        files += count
        digest = hashlib.sha256(data).hexdigest()
        diff_ids.append(f"sha256:{digest}")
        blobs[digest] = data
    layers = [f"blobs/sha256/{d[7:]}" for d in diff_ids]
    config = json.dumps({"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
                         "os": "linux", "config": {"Cmd": ["/bin/true"]},
                         "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    config_digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": f"sha256:{config_digest}", "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d,
                    "size": len(blobs[d[7:]])} for d in diff_ids]}).encode()
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    blobs[config_digest], blobs[manifest_digest] = config, manifest
    index = {"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json",
         "digest": f"sha256:{manifest_digest}", "size": len(manifest),
         "annotations": {"io.containerd.image.name": "docker.io/library/big:1",
                         "org.opencontainers.image.ref.name": "1"}}]}
    documents = {"index.json": json.dumps(index).encode(),
                 "manifest.json": json.dumps([{"Config": f"blobs/sha256/{config_digest}",
                                               "RepoTags": ["big:1"], "Layers": layers}]).encode(),
                 "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
        for digest in sorted(blobs):
            add(f"blobs/sha256/{digest}", blobs[digest])
        for name, data in documents.items():
            add(name, data)
    return [blobs[d[7:]] for d in diff_ids], files


def settle():
    """What was written before must not be paid for by what comes next."""
    os.sync()
    time.sleep(0.3)


def timed(command, **kwargs):
    settle()
    begin = time.monotonic()
    out = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, **kwargs)
    took = time.monotonic() - begin
    if out.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {out.stdout.decode()}")
    return took


class Import:
    """Our own, into a fresh store each time."""

    def __init__(self, build):
        self.build = build

    def once(self, archive):
        daemon = Daemon(self.build)
        try:
            return import_into(daemon, archive)
        finally:
            daemon.stop()


def import_into(daemon, archive, watch=None):
    env = dict(os.environ, PULGA_URL=daemon.url,
               PULGA_KEY=pathlib.Path(daemon.data, "admin.key").read_text().strip())
    settle()
    begin = time.monotonic()
    client = subprocess.Popen([daemon.bin / "pulga", "image", "import", archive], env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while watch is not None and client.poll() is None:
        watch(client.pid)
    text = client.communicate()[0]
    took = time.monotonic() - begin
    if client.returncode != 0:
        sys.exit(f"the import failed: {text.decode()}")
    return took


def extract(layers, scratch):
    """`tar -x` of each layer into one directory; without and with bringing it to the disk."""
    target = scratch / "extracted"
    target.mkdir()
    try:
        settle()
        begin = time.monotonic()
        for layer in layers:
            subprocess.run(["tar", "-x", "-C", target, "-f", layer], check=True)
        plain = time.monotonic() - begin
        subprocess.run(["sync", "-f", target], check=True)
        return plain, time.monotonic() - begin
    finally:
        shutil.rmtree(target)


def seconds(values):
    return f"{statistics.median(values):.2f} s ({min(values):.2f}..{max(values):.2f})"


def tar_figures(build, work, rounds):
    ours, plain, synced = [], [], []
    for _ in range(rounds):
        ours.append(Import(build).once(work.archive))
        a, b = extract(work.layers, work.path)
        plain.append(a)
        synced.append(b)
    ratio = statistics.median(o / s for o, s in zip(ours, synced))
    bare = statistics.median(o / s for o, s in zip(ours, plain))
    return [Row(f"import of a 300 MB image, {LAYERS} layers, {work.files} files, against `tar -x` "
                "and `sync -f`",
                f"{ratio:.2f} x: {seconds(ours)} against {seconds(synced)}", "<= 1.3 x"),
            Row("the same against `tar -x` that leaves it in the page cache; our import is on the "
                "disk when it ends",
                f"{bare:.2f} x: against {seconds(plain)}", "")]


@contextlib.contextmanager
def docker(scratch):
    root = scratch / "docker"
    try:
        with dockerd(root) as client:
            yield client
    except LeftOut as why:
        sys.exit(str(why))
    finally:
        subprocess.run(["umount", "-R", "-q", root / "data"], check=False)
        shutil.rmtree(root, ignore_errors=True)


def docker_load(work):
    with docker(work.path) as client:
        return timed([*client, "load", "-q", "-i", work.archive])


def podman_load(work):
    root = work.path / "podman"
    podman = ["podman", "--root", root / "root", "--runroot", root / "run", "--storage-driver",
              "overlay", "--cgroup-manager", "cgroupfs"]
    try:
        return timed([*podman, "load", "-q", "-i", work.archive])
    finally:
        subprocess.run([*map(str, podman), "rmi", "-a", "-f"], capture_output=True)
        subprocess.run(["umount", "-R", "-q", root / "root" / "overlay"], check=False)
        shutil.rmtree(root, ignore_errors=True)


def skopeo_umoci(work):
    root = work.path / "oci"
    root.mkdir()
    try:
        copy = timed(["skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{work.archive}",
                      f"oci:{root}/image:1"])
        return copy + timed(["umoci", "unpack", "--image", f"{root}/image:1", root / "bundle"])
    finally:
        shutil.rmtree(root, ignore_errors=True)


def peer_figures(build, work, rounds):
    rows = []
    for name, load in (("docker load", docker_load), ("podman load", podman_load),
                       ("skopeo copy + umoci unpack", skopeo_umoci)):
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(Import(build).once(work.archive))
            theirs.append(load(work))
        ratio = statistics.median(t / o for o, t in zip(ours, theirs))
        rows.append(Row(f"`{name}` of the same archive", f"{ratio:.1f} x our time: "
                        f"{seconds(theirs)} against {seconds(ours)}", "> 1 x"))
    return rows


def again_figures(build, work, rounds):
    """The same archive once more: nothing is new, so that no layer is sent or looked at."""
    ours, coreutils, openssl = [], [], []
    daemon = Daemon(build)
    try:
        import_into(daemon, work.archive)
        for _ in range(rounds):
            ours.append(import_into(daemon, work.archive))
            coreutils.append(timed(["sha256sum", work.archive]))
            openssl.append(timed(["openssl", "dgst", "-sha256", work.archive]))
    finally:
        daemon.stop()
    return [Row(f"the same archive again, against `{name}` of it",
                f"{statistics.median(o / t for o, t in zip(ours, theirs)):.2f} x: {seconds(ours)} "
                f"against {seconds(theirs)}", wanted)
            for name, theirs, wanted in (("sha256sum", coreutils, "<= 1.1 x"),
                                         ("openssl dgst -sha256", openssl, ""))]


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")


def one_figures(build, work, rounds):
    """14 of 15 layers are there: against reading the file once."""
    rows = []
    for name, cold in (("cold, the file not in the page cache", True), ("warm", False)):
        ours, reading = [], []
        for _ in range(rounds):
            daemon = Daemon(build)
            try:
                import_into(daemon, work.archive)
                if cold:
                    drop_caches()
                ours.append(import_into(daemon, work.changed))
                if cold:
                    drop_caches()
                with open(os.devnull, "wb") as null:
                    settle()
                    begin = time.monotonic()
                    subprocess.run(["cat", work.changed], stdout=null, check=True)
                    reading.append(time.monotonic() - begin)
            finally:
                daemon.stop()
        ratio = statistics.median(o / r for o, r in zip(ours, reading))
        rows.append(Row(f"import with 14 of 15 layers there, against `cat` of the archive; {name}",
                        f"{ratio:.2f} x: {seconds(ours)} against {seconds(reading)}",
                        "<= 1 x"))
    return rows


def memory_figures(build, work, _):
    peaks = {"Rss": 0, "Pss": 0}
    daemon = Daemon(build)

    def watch(client):
        pids = [*daemon.processes(), client]
        for field in peaks:
            peaks[field] = max(peaks[field], sum(smaps_kib(pid, field) for pid in pids))
    try:
        import_into(daemon, work.archive, watch)
    finally:
        daemon.stop()
    return [Row("the same import, peak memory of all our processes, the CLI too",
                f"{peaks['Pss'] / 1024:.1f} MiB (RSS added up, shared pages many times: "
                f"{peaks['Rss'] / 1024:.1f} MiB)", "<= 32 MiB")]


class Work:
    """The archives and their layers, on the disk that everything is measured on."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory)
        self.archive = self.path / "image.tar"
        self.changed = self.path / "changed.tar"
        self.layers = [self.path / f"layer{number}.tar" for number in range(LAYERS)]
        count = self.path / "files"
        if not count.exists():
            layers, files = make_archive(self.archive)
            for path, data in zip(self.layers, layers):
                path.write_bytes(data)
            make_archive(self.changed, changed=LAYERS - 1)
            count.write_text(str(files))
        self.files = int(count.read_text())


def main():
    sections = {"tar": tar_figures, "peers": peer_figures, "again": again_figures,
                "one": one_figures, "memory": memory_figures}
    parser = section_options(__doc__, sections)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--keep", type=pathlib.Path, help="make the archives there, once")
    options, chosen = chosen_sections(parser, sections)
    with tempfile.TemporaryDirectory(prefix="pulga-import-") as directory:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        work = Work(options.keep or directory)
        rows = []
        for name in chosen:
            rows += sections[name](options.build, work, options.rounds)
    found = table(rows)
    print(found)
    if options.write:
        write_table("imports", found)


if __name__ == "__main__":
    main()
