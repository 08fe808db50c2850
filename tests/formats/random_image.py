"""Random layered images: whatever a layer may say about names that other layers, or it itself,
spoke of before. The same seed gives the same image.

A model of the merged tree goes along, only to pick names worth talking about; what the tree must
be in the end is told by another tool.
"""

import io
import random
import tarfile

NAMES = ["a", "b", "c", "bin", "lib", "etc", "usr", "x.conf"]
ODD = ["sp ace", "new\nline", "tab\t", "back\\slash", "pipe|", "esc\x1b[31m", "co:lon", "-dash",
       "\u00e9", "e\u0301", "\u202ertl", "raw\udcff\udcfe", ".hidden", "..almost", "\x7f", "*?[",
       "n" * 101, "'\"$", ".wh", "%s%n"]
MODES = [0o644, 0o755, 0o600, 0o4755, 0o2750, 0o1777, 0o000, 0o444]
IDS = [0, 0, 0, 1, 33, 1000, 65534, 65535]
TARGETS = ["a", "/etc", "../../../../etc", "./b/../c", "missing/none", "/", ".", "x" * 200]


class Tree:
    """{path tuple: "d", "f", "p" or ("l", target)}; the root is there always."""

    def __init__(self):
        self.nodes = {(): "d"}

    def resolve(self, path, hops=0):
        """`path` with every link of its parents followed inside the root; None if it can not be."""
        done = ()
        for at, part in enumerate(path[:-1]):
            step = done[:-1] if part == ".." else done + (part,) if part != "." else done
            node = self.nodes.get(step)
            if isinstance(node, tuple):
                if hops > 8:
                    return None
                target = tuple(p for p in node[1].split("/") if p)
                start = () if node[1].startswith("/") else step[:-1]
                return self.resolve(start + target + path[at + 1:], hops + 1)
            if node != "d":
                return None
            done = step
        return done + path[-1:] if path and path[-1] not in (".", "..") else None

    def remove(self, path, keep=frozenset()):
        """With all below it, but for `keep` and the directories above those."""
        spared = {own[:n] for own in keep for n in range(len(own) + 1)}
        for known in [p for p in self.nodes if p[:len(path)] == path and p not in spared]:
            del self.nodes[known]

    def below(self, path):
        return any(p[:len(path)] == path and p != path for p in self.nodes)


class RandomImage:
    """layers: tar streams, base first; story: what they say, for a person who has to find out."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tree = Tree()
        self.layers, self.story = [], []
        for _ in range(self.random.choice((1, 2, 2, 3, 3, 4, 6))):
            self.layers.append(self.make_layer())

    # --- one layer ---

    def make_layer(self):
        self.own = set()  # what this layer made, as resolved paths
        self.out = io.BytesIO()
        self.pax = self.random.random() < 0.7
        form = tarfile.PAX_FORMAT if self.pax else tarfile.GNU_FORMAT
        self.story.append(f"layer {len(self.layers)}:")
        with tarfile.open(fileobj=self.out, mode="w", format=form, encoding="utf-8",
                          errors="surrogateescape") as self.tar:
            deeds = [self.add_file] * 7 + [self.add_dir] * 5 + [self.add_link] * 4 + [
                self.add_hard_link] * 3 + [self.add_fifo, self.add_root] + [self.whiteout] * 4 + [
                self.opaque] * 2
            for _ in range(self.random.randrange(0, 26)):
                self.random.choice(deeds)()
        return self.out.getvalue()

    def name(self):
        return self.random.choice(ODD if self.random.random() < 0.12 else NAMES)

    def folder(self):
        """A known directory, now and then by way of a link to it, now and then a new one."""
        known = [p for p, node in self.tree.nodes.items() if node == "d" or isinstance(node, tuple)]
        path = self.random.choice(known)
        if self.random.random() < 0.15:
            path += (self.name(),)
        return path if len(path) < 6 else ()

    def place(self):
        """(path as written, as resolved) where something may be put; None when there is none."""
        for _ in range(20):
            path = self.folder() + (self.name(),)
            found = self.tree.resolve(path)
            if found is None and self.tree.resolve(path[:-1]) is not None:
                parent = self.tree.resolve(path[:-1])
                if parent is not None and parent not in self.tree.nodes:
                    found = parent + path[-1:]  # its directory is implied
            if found is not None and not any(
                    self.tree.nodes.get(found[:n], "d") != "d" for n in range(1, len(found))):
                return path, found
        return None

    def info(self, path, kind):
        written = "/".join(path)
        if self.random.random() < 0.2:
            written = self.random.choice(("./", "/")) + written
        info = tarfile.TarInfo(written)
        info.type = kind
        info.mode = self.random.choice(MODES)
        if kind == tarfile.DIRTYPE:  # what is implied below a setgid directory is a matter of taste
            info.mode &= ~0o2000
        info.uid, info.gid = self.random.choice(IDS), self.random.choice(IDS)
        info.mtime = self.random.randrange(0, 2**31)
        if self.pax and self.random.random() < 0.3:
            info.mtime += self.random.randrange(1, 1000) / 1024
        if self.pax and kind in (tarfile.REGTYPE, tarfile.DIRTYPE) and self.random.random() < 0.2:
            info.pax_headers = {f"SCHILY.xattr.user.{self.random.choice('kmn')}":
                                self.random.choice(("red", "\u00e9", "long" * 50))}
        return info

    def emit(self, info, data=b""):
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))
        self.story.append(f"  {info.type.decode()} {info.name!r} {oct(info.mode)} {info.uid}:"
                          f"{info.gid} {info.mtime} {info.linkname!r} {len(data)}")

    def put(self, found, node):
        """In the model: implied directories, then the name itself."""
        for n in range(1, len(found)):
            self.tree.nodes.setdefault(found[:n], "d")
        if not (node == "d" and self.tree.nodes.get(found) == "d"):
            self.tree.remove(found)
            self.own = {p for p in self.own if p[:len(found)] != found}
        self.tree.nodes[found] = node
        self.own.add(found)

    # --- what it may say ---

    def add(self, kind, node, data=b"", link=""):
        place = self.place()
        if place is None:
            return
        path, found = place
        info = self.info(path, kind)
        info.linkname = link
        if kind == tarfile.SYMTYPE:
            info.mode = 0o777
        self.emit(info, data)
        self.put(found, node)

    def add_file(self):
        size = self.random.choice((0, 1, 100, 511, 512, 513, 5000, 70000))
        self.add(tarfile.REGTYPE, "f", self.random.randbytes(size))

    def add_dir(self):
        self.add(tarfile.DIRTYPE, "d")

    def add_fifo(self):
        self.add(tarfile.FIFOTYPE, "p")

    def add_link(self):
        known = ["/" * self.random.randrange(2) + "/".join(p) for p in self.tree.nodes if p]
        target = self.random.choice(known + TARGETS)
        self.add(tarfile.SYMTYPE, ("l", target), link=target)

    def add_root(self):
        if self.random.random() < 0.5:
            info = self.info((), tarfile.DIRTYPE)
            info.name, info.mode = "./", 0o755
            self.emit(info)

    def add_hard_link(self):
        files = [p for p, node in self.tree.nodes.items() if node != "d"]
        place = self.place()
        if not files or place is None:
            return
        target = self.random.choice(files)
        path, found = place
        # Not onto itself, and not where making room would remove the target.
        if target[:len(found)] == found or (self.tree.nodes.get(found) == "d"):
            return
        info = self.info(path, tarfile.LNKTYPE)
        info.pax_headers = {}
        info.linkname = "/" * self.random.randrange(2) + "/".join(target)
        self.emit(info)
        self.put(found, self.tree.nodes[target])

    def whiteout(self):
        lower = [p for p in self.tree.nodes if p]
        files = [p for p in lower if self.tree.nodes[p] == "f"]
        dice = self.random.random()
        if not lower or dice < 0.1:
            path = self.folder() + ("never-there",)
        elif files and dice < 0.13:
            path = self.random.choice(files) + ("never-there",)  # below what is no directory
        else:
            path = self.random.choice(lower)
        if self.tree.resolve(path) is None and path[:-1] not in files:
            return
        info = self.info(path[:-1] + (".wh." + path[-1],), tarfile.REGTYPE)
        info.pax_headers = {}
        self.emit(info)
        found = self.tree.resolve(path)
        if found is not None:
            self.tree.remove(found, self.own)

    def opaque(self):
        folders = [p for p, node in self.tree.nodes.items() if node == "d" and p]
        if not folders:
            return
        path = self.random.choice(folders)
        info = self.info(path + (".wh..wh..opq",), tarfile.REGTYPE)
        info.pax_headers = {}
        self.emit(info)
        self.tree.remove(path, self.own | {path})
