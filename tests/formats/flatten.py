"""What an image's root directory must be, told by tools that are not ours: umoci unpacks, and a
walk written here lists. Also our own importer, driven in one process, and its layers mounted.

A node is what tar can say of a name; `tree_line` and `sum_line` are the formats of
`pulga image inspect --tree` and `--sums`. Devices are left out: Pulga makes none.
"""

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
import unittest
from dataclasses import dataclass
from pathlib import Path

IMPORT_BATCH = os.environ.get("PULGA_IMPORT_BATCH", str(
    Path(__file__).resolve().parents[2] / "build/release/bin/import_batch"))
MUST_RUN = os.environ.get("PULGA_TESTS_MUST_RUN") == "1"
FIRST_HOST_ID = 0x7A000000  # tests/support/forked_unpacker.h
LETTERS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p",
           stat.S_IFSOCK: "s"}


def skip_unless(condition, why):
    """A skip says why, loudly; under PULGA_TESTS_MUST_RUN=1 it is a failure."""
    if condition:
        return
    print("!! not tested: " + why, file=sys.stderr, flush=True)
    if MUST_RUN:
        raise AssertionError("PULGA_TESTS_MUST_RUN=1, but: " + why)
    raise unittest.SkipTest(why)


def needs_tools(*tools):
    skip_unless(os.geteuid() == 0, "needs root: images hold files of many owners")
    for tool in tools:
        skip_unless(shutil.which(tool), f"needs {tool}; scripts/setup test installs it")


def run(*command, **options):
    """Runs a tool; its output, or an error that shows what it said."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: status {done.returncode}\n"
                             + (done.stdout + done.stderr).decode(errors="replace")[-3000:])
    return done.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Node:
    """One name of a tree. `data` is a link's target or a file's SHA-256, in bytes and hex."""
    letter: str
    mode: int
    uid: int
    gid: int
    data: bytes
    mtime_ns: int
    xattrs: tuple


def walk(root, first_id=0):
    """{path in bytes: Node} of everything below `root`, links not followed."""
    nodes = {}
    pending = [os.fsencode(root)]
    while pending:
        folder = pending.pop()
        for entry in os.scandir(folder):
            info = entry.stat(follow_symlinks=False)
            letter = LETTERS.get(stat.S_IFMT(info.st_mode))
            if letter is None:
                continue
            path = os.path.relpath(entry.path, os.fsencode(root))
            nodes[path] = Node(letter, stat.S_IMODE(info.st_mode), info.st_uid - first_id,
                               info.st_gid - first_id, data_of(entry.path, letter),
                               info.st_mtime_ns, xattrs_of(entry.path, letter))
            if letter == "d":
                pending.append(entry.path)
    return nodes


def data_of(path, letter):
    if letter == "l":
        return os.readlink(path)
    if letter != "f":
        return b""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def xattrs_of(path, letter):
    """The names images may set, without what an overlay writes for itself."""
    if letter not in "fd":
        return ()
    names = [n for n in os.listxattr(path, follow_symlinks=False)
             if n.startswith("user.") and not n.startswith("user.overlay.")]
    return tuple(sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in names))


def escape(text, also):
    """Control bytes, the backslash and `also` as \\xNN."""
    return b"".join(bytes([c]) if c >= 0x20 and c != 0x7f and c not in also else b"\\x%02x" % c
                    for c in text)


def tree_line(path, node):
    link = escape(node.data, b"\\|") if node.letter == "l" else b""
    return b"|".join([escape(path, b"\\|"), node.letter.encode(), b"%o" % node.mode,
                      b"%d:%d" % (node.uid, node.gid), link])


def sum_line(path, node):
    """As coreutils: a line with an escaped name begins with a backslash."""
    name = b"./" + path
    quoted = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if quoted != name else b"") + node.data + b"  " + quoted


def tree_lines(nodes):
    """In the order of the lines before anything is escaped."""
    return [tree_line(path, nodes[path]) for path in sorted(nodes, key=lambda path: path + b"|")]


def sum_lines(nodes):
    return [sum_line(path, nodes[path]) for path in sorted(nodes) if nodes[path].letter == "f"]


def layout_of(source, layout, tag="it"):
    """Any image skopeo reads, as an OCI layout umoci reads."""
    run("skopeo", "copy", "--quiet", "--insecure-policy", source, f"oci:{layout}:{tag}")


def umoci_unpack(layout, tag, target):
    run("umoci", "raw", "unpack", "--image", f"{layout}:{tag}", target)
    return target


@dataclass
class Imported:
    """What import_batch answered for one archive."""
    images: list  # of (digest, refs, layers)
    warnings: list
    failure: str


class Importer:
    """import_batch as a context manager; leaving it proves that nothing stays behind."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        self.process = None

    def __enter__(self):
        self.scratch.mkdir(mode=0o755, exist_ok=True)
        self.process = subprocess.Popen([IMPORT_BATCH, str(self.scratch)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        status = self.process.wait(120)
        if error[0] is None and status != 0:
            raise AssertionError(f"import_batch ended with {status}")

    def add(self, name, archive):
        print(f"{name}\t{archive}", file=self.process.stdin, flush=True)
        answer = Imported([], [], "")
        for line in self.process.stdout:
            kind, *fields = line.rstrip("\n").split("\t")
            if kind == "image":
                digest, refs, layers = fields
                answer.images.append((digest, refs.split(",") if refs else [], layers.split(",")))
            elif kind == "warning":
                answer.warnings.append(fields[0])
            elif kind == "failed":
                answer.failure = " ".join(fields)
            else:
                return answer
        raise AssertionError(f"import_batch died on {archive}: {self.process.wait()}")

    def tree(self, name, number=0):
        return (self.scratch / f"{name}.{number}.tree").read_bytes().splitlines()

    def sums(self, name, number=0):
        return (self.scratch / f"{name}.{number}.sums").read_bytes().splitlines()

    def walk(self, layers):
        """The nodes of an image, seen by mounting its layers as an instance gets them."""
        with Mounted(self.scratch, layers) as root:
            return walk(root, FIRST_HOST_ID)


class Mounted:
    """Layers as one read-only overlay. The names are short because mount takes one page."""

    def __init__(self, scratch, layers):
        self.folder = Path(scratch) / "mounted"
        self.layers = [Path(scratch) / "layers" / layer for layer in layers]

    def __enter__(self):
        self.folder.mkdir()
        (self.folder / "root").mkdir()
        (self.folder / "e").mkdir()  # an overlay has two layers at least
        lower = []
        for number, layer in enumerate(reversed(self.layers)):
            (self.folder / str(number)).symlink_to(layer)
            lower.append(str(number))
        run("mount", "-t", "overlay", "overlay", "-o",
            "ro,userxattr,lowerdir=" + ":".join([*lower, "e"]), "root", cwd=self.folder)
        return self.folder / "root"

    def __exit__(self, *_):
        # Whoever looks at all processes of the machine, as tests beside this one do, may hold a
        # file of it for a moment.
        for tries in range(100):
            try:
                run("umount", self.folder / "root")
                break
            except AssertionError:
                if tries == 99:
                    raise
                time.sleep(0.1)
        shutil.rmtree(self.folder)


def own_mounts(*emptied):
    """Moves this process to a mount namespace of its own: what it mounts ends with it. `emptied`
    folders are its own too, for tools that leave things in fixed places."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_rec, ms_private = 0x20000, 0x4000, 0x40000
    if libc.unshare(clone_newns) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, ms_rec | ms_private, None) != 0:
        raise OSError(ctypes.get_errno(), "mount / private")
    for folder in emptied:
        run("mount", "-t", "tmpfs", "tmpfs", folder)


def differences(expected, found, limit=12):
    """The first lines that only one side has, for a message."""
    only = sorted([b"- " + line for line in set(expected) - set(found)]
                  + [b"+ " + line for line in set(found) - set(expected)], key=lambda x: x[2:])
    if not only and list(expected) != list(found):
        first = next(n for n, line in enumerate(expected) if line != found[n])
        only = [b"in another order:", b"- " + expected[first], b"+ " + found[first]]
    return "\n".join(line.decode(errors="backslashreplace") for line in only[:limit])
