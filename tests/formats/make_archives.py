#!/usr/bin/env python3
"""Makes image archives with the real tools, from nothing but this machine's own files.

  make_archives.py FOLDER     writes them there, with a list of what each holds

docker.io, podman, buildah, skopeo and umoci as Debian has them; no network. Shapes of tools Debian
lacks come from shapes.py. Needs root. dockerd runs privately and ends with this process.
"""

import dataclasses
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import flatten
import shapes
from flatten import run
from shapes import archive

FIXED_PLACES = ("/run", "/dev/shm", "/var/lib")  # where these tools write whatever they are told
TOOLS = ("docker", "dockerd", "podman", "buildah", "skopeo", "umoci", "zstd", "tar")
DOCKER = "/usr/bin/docker"  # Debian's; another client may come first in PATH
BUSYBOX = "/bin/busybox"
APPLETS = ("sh", "rm", "mkdir", "ln", "chmod", "chown", "true", "mv", "touch")
RECIPE = r"""FROM scratch
ADD board.tar /
SHELL ["/bin/sh", "-c"]
RUN rm -r /data/drop /etc/old.conf
RUN rm -rf /data/opaque && mkdir /data/opaque && echo new > /data/opaque/new
RUN ln /data/keep /data/hard && chown 5:6 /data/owned && chmod 4755 /usr/bin/tool
RUN rm /data/link && mkdir /data/link && echo x > /data/link/x
RUN rm -r /data/dir && ln -s keep /data/dir
RUN true
RUN true
ENV A=1 PATH=/bin
WORKDIR /data
USER 5:6
EXPOSE 8080
ENTRYPOINT ["/bin/tool"]
"""


@dataclasses.dataclass
class Made:
    """An archive and, by name, the nodes each of its images must have."""
    name: str
    path: Path
    trees: dict
    digests: dict = dataclasses.field(default_factory=dict)  # ImageIDs, where a tool tells them


def board_entries():
    """(path, kind, content or link, mode, uid, gid): what root file systems are made of."""
    yield from ((d, "5", b"", 0o755, 0, 0) for d in ("usr", "usr/bin", "etc", "data", "data/drop"))
    yield "bin", "2", b"usr/bin", 0o777, 0, 0
    yield "tmp", "5", b"", 0o1777, 0, 0
    yield "usr/bin/busybox", "0", Path(BUSYBOX).read_bytes(), 0o755, 0, 0
    for applet in APPLETS:
        yield f"usr/bin/{applet}", "1", b"usr/bin/busybox", 0o755, 0, 0
    yield "usr/bin/tool", "0", b"#!/bin/sh\n", 0o755, 0, 0
    yield "usr/bin/su", "0", b"setuid", 0o4755, 0, 0
    yield "usr/bin/mail", "0", b"setgid", 0o2755, 0, 8
    yield "etc/passwd", "0", b"root:x:0:0::/:/bin/sh\n", 0o644, 0, 0
    yield "etc/shadow", "0", b"root:*::::::\n", 0o640, 0, 42
    yield "etc/old.conf", "0", b"old", 0o600, 0, 0
    yield "data/drop/inner", "0", b"gone", 0o644, 0, 0
    yield "data/keep", "0", b"keep" * 1000, 0o644, 1000, 1000
    yield "data/owned", "0", b"", 0o644, 65534, 65534
    yield "data/opaque", "5", b"", 0o750, 7, 7
    yield "data/opaque/old", "0", b"old", 0o644, 0, 0
    yield "data/link", "2", b"/nowhere", 0o777, 0, 0
    yield "data/dir", "5", b"", 0o755, 0, 0
    yield "data/dir/inner", "0", b"", 0o644, 0, 0
    yield "data/fifo", "6", b"", 0o622, 0, 0
    for name in ("sp ace", "\u00e9", "e\u0301", "new\nline", "back\\slash", "x" * 180):
        yield "data/" + name, "0", name.encode(), 0o644, 0, 0


def board_tar():
    """As tar writes it, with times, PAX headers for long and odd names, and an attribute."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, kind, data, mode, uid, gid) in enumerate(board_entries()):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind.encode(), mode, uid, gid
            info.mtime = 1_000_000_000 + number * 1000
            if kind in "12":
                info.linkname = data.decode()
            elif kind == "0":
                info.size = len(data)
            if name == "data/keep":
                info.pax_headers = {"SCHILY.xattr.user.colour": "red"}
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class PrivateDocker:
    """A dockerd of our own: its own data, socket, cgroup parent; no bridge, no packet filter."""

    def __init__(self, folder):
        self.folder = folder / "docker"
        self.parent = f"/pulga-formats-{os.getpid()}"
        self.process = None

    def __enter__(self):
        self.folder.mkdir()
        (self.folder / "daemon.json").write_text("{}")
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--config-file", self.folder / "daemon.json", "--data-root",
                 self.folder / "root", "--exec-root", self.folder / "exec", "--pidfile",
                 self.folder / "pid", "-H", f"unix://{self.folder}/sock", "--bridge=none",
                 "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
                 "--storage-driver=vfs", "--cgroup-parent", self.parent,
                 "--exec-opt", "native.cgroupdriver=cgroupfs"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(200):
            if self.process.poll() is not None or self.answers():
                break
            time.sleep(0.1)
        if not self.answers():
            log = (self.folder / "log").read_text(errors="replace")[-1500:]
            self.__exit__()
            flatten.skip_unless(False, "docker save: dockerd does not run here:\n" + log)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        # Not glob: it fails when a cgroup of somebody else's goes while it looks.
        for folder in [place for place, _, _ in os.walk("/sys/fs/cgroup")
                       if place.endswith(self.parent)]:
            for path, _, _ in os.walk(folder, topdown=False):
                try:
                    os.rmdir(path)
                except OSError as error:
                    print(f"!! left behind: {path}: {error}", file=sys.stderr)

    def answers(self):
        return subprocess.run([DOCKER, "-H", f"unix://{self.folder}/sock", "version"],
                              capture_output=True, check=False).returncode == 0

    def __call__(self, *words, **environment):
        return run(DOCKER, "-H", f"unix://{self.folder}/sock", *words,
                   env={**os.environ, "DOCKER_CONFIG": str(self.folder), **environment}).strip()

    def build(self, context, tag, **environment):
        self("build", "--network", "none", "-t", tag, context, **environment)
        return self("inspect", "-f", "{{.Id}}", tag)


class Maker:
    """Everything is made below `folder`; `made` collects the archives, `refused` those that are
    none by any engine's rules, with a word the message must hold."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.made = []
        self.refused = {}  # name -> what the message says
        self.context = self.folder / "context"
        self.context.mkdir(parents=True)
        (self.context / "board.tar").write_bytes(board_tar())
        (self.context / "Dockerfile").write_text(RECIPE)

    def add(self, name, trees, digests=None, data=None):
        """`data` is written; without it the file is there already."""
        path = self.folder / f"{name}.tar"
        if data is not None:
            path.write_bytes(data)
        self.made.append(Made(name, path, trees, digests or {}))
        return path

    def tree_of(self, source):
        """umoci's tree of an image skopeo can read."""
        work = self.folder / "reference"
        work.mkdir()
        flatten.layout_of(source, work / "layout")
        flatten.umoci_unpack(work / "layout", "it", work / "root")
        nodes = flatten.walk(work / "root")
        shutil.rmtree(work)
        return nodes

    def path(self, name):
        return self.folder / f"{name}.tar"

    # --- docker ---

    def docker(self):
        with PrivateDocker(self.folder) as docker:
            ids = {"classic:1": docker.build(self.context, "classic:1", DOCKER_BUILDKIT="0"),
                   "kit:1": docker.build(self.context, "kit:1", DOCKER_BUILDKIT="1")}
            docker("tag", "classic:1", "again:2")
            path = self.path
            docker("save", "-o", path("docker-classic"), "classic:1")
            docker("save", "-o", path("docker-buildkit"), "kit:1")
            docker("save", "-o", path("docker-two-tags"), "classic:1", "again:2")
            docker("save", "-o", path("docker-two-images"), "classic:1", "kit:1")
            docker("save", "-o", path("docker-untagged"), ids["classic:1"])
            made_by_us = self.folder / "ours.tar"
            made_by_us.write_bytes(archive.docker_archive([small_image("loaded:1")]))
            docker("load", "-i", made_by_us)
            docker("save", "-o", path("docker-loaded"), "loaded:1")
            exported = self.docker_export(docker, "classic:1")
        classic = self.tree_of(f"docker-archive:{path('docker-classic')}:classic:1")
        kit = self.tree_of(f"docker-archive:{path('docker-buildkit')}:kit:1")
        check_export(exported, classic)
        self.add("docker-classic", {"classic:1": classic}, ids)
        self.add("docker-buildkit", {"kit:1": kit}, ids)
        self.add("docker-two-tags", {"classic:1": classic, "again:2": classic}, ids)
        self.add("docker-two-images", {"classic:1": classic, "kit:1": kit}, ids)
        self.add("docker-untagged", {"": classic}, {"": ids["classic:1"]})
        self.add("docker-loaded", {"loaded:1": self.tree_of(
            f"docker-archive:{path('docker-loaded')}:loaded:1")})
        saved = path("docker-classic").read_bytes()
        self.add("docker-outer-gzip", {"classic:1": classic}, ids, gzip.compress(saved, 1))
        self.add("docker-outer-zstd", {"classic:1": classic}, ids, shapes.zstd(saved))

    def docker_export(self, docker, image):
        container = docker("create", "--network", "none", image)
        docker("export", "-o", self.folder / "export.tar", container)
        root = self.folder / "export"
        root.mkdir()
        run("tar", "-x", "-p", "--same-owner", "--xattrs", "-f", self.folder / "export.tar",
            "-C", root)
        nodes = flatten.walk(root)
        shutil.rmtree(root)
        return nodes

    # --- podman, buildah, skopeo ---

    def containers(self):
        """podman and buildah share a store below the folder."""
        store = ["--root", self.folder / "store", "--runroot", self.folder / "run",
                 "--storage-driver", "vfs"]
        podman = ["podman", *store, "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        buildah = ["buildah", *store]
        build = ["bud", "--quiet", "--layers", "--isolation", "chroot", "--pull-never"]
        for tag, kind in (("pod:1", "docker"), ("second:1", "oci")):
            run(*buildah, *build, "--format", kind, "-t", tag, self.context)
        path = self.path
        for name, kind, tag in (("podman-docker", "docker-archive", "pod:1"),
                                ("podman-oci", "oci-archive", "second:1")):
            run(*podman, "save", "--quiet", "--format", kind, "-o", path(name), tag)
        for kind, target, tag in (("docker-dir", "dd", "pod:1"), ("oci-dir", "dir", "second:1")):
            run(*podman, "save", "--quiet", "--format", kind, "-o", self.folder / target, tag)
        run(*podman, "save", "--quiet", "-m", "-o", path("podman-several"), "pod:1", "second:1")
        root = run(*podman, "image", "mount", "pod:1").strip()
        mounted = flatten.walk(root)
        run(*podman, "image", "unmount", "pod:1")
        layout = self.folder / "layout"
        run(*buildah, "push", "--quiet", "second:1", f"oci:{layout}:oci")
        run(*buildah, "push", "--quiet", "second:1", f"docker-archive:{path('buildah-docker')}:b:1")
        run(*buildah, "push", "--quiet", "--disable-compression", "second:1",
            f"oci-archive:{path('buildah-plain')}:b:1")
        self.manifest_list(buildah, build)
        pod = self.tree_of(f"docker-archive:{path('podman-docker')}:localhost/pod:1")
        oci = self.tree_of(f"oci:{layout}:oci")
        check_export(mounted, pod)
        self.add("podman-docker", {"localhost/pod:1": pod})
        self.add("podman-oci", {"localhost/second:1": oci})
        self.add("podman-several", {"localhost/pod:1": pod, "localhost/second:1": oci})
        self.add("podman-dir", {"*": oci}, None, shapes.tar_of_folder(self.folder / "dir"))
        self.add("buildah-docker", {"b:1": oci, "localhost/second:1": oci})
        self.add("buildah-plain", {"*": oci})
        self.path("podman-docker-dir").write_bytes(shapes.tar_of_folder(self.folder / "dd"))
        self.refused["podman-docker-dir"] = "docker-dir"
        self.skopeo(layout, oci)

    def manifest_list(self, buildah, build):
        """An index pushed with all its images, which become an index in an index."""
        run(*buildah, "manifest", "create", "list:1")
        run(*buildah, "manifest", "add", "list:1", "containers-storage:localhost/second:1")
        run(*buildah, "manifest", "push", "--all", "list:1", f"oci:{self.folder / 'listed'}:l")

    def skopeo(self, layout, tree):
        def copy(name, transport, *options, tag="s:1"):
            run("skopeo", "copy", "--quiet", "--insecure-policy", *options, f"oci:{layout}:oci",
                f"{transport}:{self.path(name)}:{tag}")
            self.add(name, {"*" if transport == "oci-archive" else tag: tree})
        copy("skopeo-docker", "docker-archive")
        copy("skopeo-gzip", "oci-archive", "--dest-compress-format", "gzip")
        copy("skopeo-zstd", "oci-archive", "--dest-compress-format", "zstd")
        copy("skopeo-zstd-chunked", "oci-archive", "--dest-compress-format", "zstd:chunked")
        # Docker's own manifest fits no OCI layout: by way of a folder.
        v2s2 = self.folder / "v2s2"
        run("skopeo", "copy", "--quiet", "--insecure-policy", "--format", "v2s2",
            f"oci:{layout}:oci", f"dir:{v2s2}")
        manifest = json.loads((v2s2 / "manifest.json").read_text())
        assert "docker.distribution.manifest.v2" in manifest["mediaType"], manifest
        run("skopeo", "copy", "--quiet", "--insecure-policy", f"dir:{v2s2}",
            f"docker-archive:{self.path('skopeo-v2s2')}:s:1")
        self.add("skopeo-v2s2", {"s:1": tree})
        run("skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{layout}:oci",
            f"oci:{self.folder / 'several'}:one")
        self.add("buildah-list", {"*": tree}, None,
                 shapes.tar_of_folder(self.folder / "listed"))

    # --- umoci ---

    def umoci(self):
        layout = self.folder / "umoci"
        image = f"{layout}:it"
        run("umoci", "init", "--layout", layout)
        run("umoci", "new", "--image", image)
        root = self.folder / "root"
        root.mkdir()
        run("tar", "-x", "-p", "--same-owner", "--xattrs", "-f", self.context / "board.tar", "-C",
            root)
        run("umoci", "insert", "--image", image, root, "/")
        run("umoci", "insert", "--image", image, "--whiteout", "/data/drop")
        run("umoci", "insert", "--image", image, "--opaque", root / "etc", "/data/opaque")
        run("umoci", "config", "--image", image, "--config.entrypoint", "/bin/tool")
        flatten.umoci_unpack(layout, "it", self.folder / "umoci-root")
        nodes = flatten.walk(self.folder / "umoci-root")
        self.add("umoci", {"*": nodes}, None, shapes.tar_of_folder(layout))

    # --- shapes ---

    def by_hand(self):
        image = small_image("hand:1")
        layout = shapes.oci(image)
        layout.write(self.folder / "hand")
        nodes = self.tree_of(f"oci:{self.folder / 'hand'}")
        untagged = dataclasses.replace(image, tags=[])
        pieces = lambda tar: b"".join(  # noqa: E731
            shapes.gzip_member(tar[at:at + 700]) for at in range(0, len(tar), 700))
        zeros = lambda tar: shapes.gzipped(tar) + b"\0" * 5000  # noqa: E731
        for name, data in {
                "kaniko": shapes.kaniko(image),
                "buildkit": shapes.buildkit(image),
                "containerd": shapes.containerd_save(image),
                "legacy": archive.legacy_archive([image]),
                "docker25": archive.docker_archive([image]),
                "skopeo-like": shapes.skopeo_like(image),
                "gzip-members": shapes.oci(image, pieces).tar(),
                "gzip-trailing-zeros": shapes.skopeo_like(image, zeros),
                "zstd-chunked": shapes.oci(image, shapes.zstd_chunked,
                                           shapes.MEDIA_LAYER + "+zstd").tar(),
                "zstd-19": shapes.oci(image, lambda tar: shapes.zstd(tar, "-19")).tar(),
                "non-distributable": shapes.oci(
                    image, shapes.gzipped,
                    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip").tar(),
                "apple-double": shapes.oci(image).tar(more=[("._index.json", b"\0\5\x16\7"),
                                                            ("README", b"hello")])}.items():
            self.add("hand-" + name, {"hand:1": nodes}, None, data)
        self.add("hand-nulls-docker25", {"": nodes}, None, shapes.docker25_nulls(untagged))
        self.add("hand-nulls", {"*": nodes}, None, shapes.with_nulls(untagged))
        self.estargz(image)

    def estargz(self, image):
        entries = [archive.Entry("etc", "dir", mode=0o755), archive.Entry("etc/a", content=b"a"),
                   archive.Entry("etc/b", content=b"b" * 3000)]
        tar, blob = shapes.estargz(entries)
        star = dataclasses.replace(image, layers=[tar], tags=["star:1"])
        layout = shapes.oci(star, lambda _: blob, shapes.MEDIA_LAYER + "+gzip")
        layout.write(self.folder / "star")
        self.add("hand-estargz", {"star:1": self.tree_of(f"oci:{self.folder / 'star'}")}, None,
                 layout.tar())

    def everything(self):
        self.by_hand()
        self.umoci()
        self.containers()
        self.docker()
        return self.made


def small_image(tag):
    """Two layers by hand, with a whiteout, an opaque directory and a layer that comes twice."""
    base = board_tar()
    top = archive.layer([
        archive.Entry("data/.wh.drop"), archive.Entry("data/opaque", "dir", mode=0o700),
        archive.Entry("data/opaque/new", content=b"n"),
        archive.Entry("data/opaque/.wh..wh..opq"),
        archive.Entry("bin/added", content=b"through the link", mode=0o755)])
    again = archive.layer([archive.Entry("again", content=b"twice")])
    return archive.Image([tag], [base, top, again, again],
                         {"Entrypoint": ["/bin/tool"], "Env": ["A=1"]})


def check_export(exported, reference):
    """A second tool's word for what umoci says; containers add mount points of their own."""
    extra = (b"dev", b"proc", b"sys", b".dockerenv", b"etc/hosts", b"etc/hostname", b"etc/mtab",
             b"etc/resolv.conf", b"run")
    mine = {path: node for path, node in exported.items()
            if not any(path == e or path.startswith(e + b"/") for e in extra)}
    other = {path: node for path, node in reference.items() if path in mine or not any(
        path == e or path.startswith(e + b"/") for e in extra)}
    trouble = flatten.differences(flatten.tree_lines(other) + flatten.sum_lines(other),
                                  flatten.tree_lines(mine) + flatten.sum_lines(mine))
    if trouble:
        raise AssertionError("the tools do not agree with each other:\n" + trouble)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    flatten.own_mounts(*FIXED_PLACES)
    for one in Maker(sys.argv[1]).everything():
        print(one.path, " ".join(one.trees))
