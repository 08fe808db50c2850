"""Runtimes size themselves by the limits of their sandbox: what they read of cgroups and of /sys,
by the probe, and what Node and Java make of it where this machine has them."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from harness import Case
from harness import image_archive as archive
from image_archive import Entry, Image

MIB = 1 << 20
MEMORY = 768 * MIB
LIMITS = {"memory": "768Mi", "cpu": "500m", "pids": 80}
def libraries(*programs):
    """Every shared library they load, by the names the loader looks them up under."""
    found = set()
    for program in programs:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(/\S+)", listing.stdout))
    return found


def entries_of(paths):
    """Files under their own names, links followed, with the folders above them."""
    folders = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    entries = [Entry(folder[1:], "dir", mode=0o755) for folder in sorted(folders)]
    return entries + [Entry(str(path)[1:], content=Path(path).read_bytes(), mode=0o755)
                      for path in sorted(str(path) for path in paths)]


def skip_without(runtime):
    """Never needed: the probe asks for the same numbers. With the real thing it is only nicer."""
    if not runtime:
        raise unittest.SkipTest("not installed here")


class Sizing(Case):
    def import_program(self, name, paths, **config):
        image = Image([name + ":1"], [archive.layer(entries_of(paths))], config)
        self.daemon.import_archive(archive.docker_archive([image]))

    def mounts_of(self, ask):
        """{mount point: (fstype, super options)} of the cgroup mounts it sees."""
        found = {}
        for line in ask("cat /proc/self/mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup"):
                found[before.split()[4]] = (after.split()[0], after.split()[2], before)
        return found

    def test_its_own_cgroup_is_shown_where_runtimes_look(self):
        self.daemon.deploy_probe("view", limits=LIMITS)

        def ask(deeds):
            return self.daemon.call("view", deeds.encode()).text

        mounts = self.mounts_of(ask)
        self.assertTrue(mounts, ask("mounts"))
        for place, (_, _, before) in mounts.items():
            self.assertEqual(before.split()[3], "/", "the root is the own cgroup: " + before)
            self.assertTrue(place.startswith("/sys/fs/cgroup"), before)
            for flag in ("ro", "nosuid", "nodev", "noexec"):
                self.assertIn(flag, before.split()[5].split(","))
            self.assertNotIn("slot-", ask(f"ls {place}"))
        if mounts.get("/sys/fs/cgroup", ("",))[0] == "cgroup2":
            self.assertEqual(ask("cat /sys/fs/cgroup/memory.max").strip(), str(MEMORY))
            self.assertEqual(ask("cat /sys/fs/cgroup/cpu.max").strip(), "50000 100000")
        else:
            base = "/sys/fs/cgroup"
            self.assertEqual(ask(f"cat {base}/memory/memory.limit_in_bytes").strip(), str(MEMORY))
            self.assertEqual(ask(f"cat {base}/cpu/cpu.cfs_quota_us").strip(), "50000")
            self.assertEqual(ask(f"cat {base}/cpu/cpu.cfs_period_us").strip(), "100000")
        for line in ask("cgroup").splitlines():
            self.assertTrue(line.endswith(":/"), line)

    def test_nothing_of_it_can_be_written(self):
        self.daemon.deploy_probe("locked", limits=LIMITS)
        for place in self.mounts_of(lambda d: self.daemon.call("locked", d.encode()).text):
            for name in ("cgroup.procs", "memory.max", "memory.limit_in_bytes", "cpu.max",
                         "cpu.cfs_quota_us", "notify_on_release", "release_agent", "tasks"):
                text = self.daemon.call("locked", f"write {place}/{name} 1".encode()).text
                self.assertRegex(text, r"errno (1|2|13|30)$", f"{place}/{name}")
            text = self.daemon.call("locked", f"mkdir {place}/below".encode()).text
            self.assertRegex(text, r"errno (1|13|30)$", place)

    def test_sys_is_a_few_copied_files(self):
        self.daemon.deploy_probe("sys", limits=LIMITS)

        def ask(deeds):
            return self.daemon.call("sys", deeds.encode()).text

        for name in ("online", "possible", "present"):
            path = "/sys/devices/system/cpu/" + name
            self.assertEqual(ask("cat " + path), Path(path).read_text())
        processors = [li for li in ask("ls /sys/devices/system/cpu").splitlines()
                      if re.fullmatch(r"cpu\d+", li)]
        here = [p for p in os.listdir("/sys/devices/system/cpu") if re.fullmatch(r"cpu\d+", p)]
        self.assertEqual(sorted(processors), sorted(here))  # glibc counts them
        pages = "/sys/kernel/mm/transparent_hugepage/enabled"
        if os.path.exists(pages):
            self.assertEqual(ask("cat " + pages), Path(pages).read_text())
        self.assertEqual(sorted(ask("ls /sys").split()), ["devices", "fs", "kernel"])
        for gone in ("/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/selinux",
                     "/sys/class", "/sys/kernel/security", "/sys/module"):
            self.assertIn("errno 2", ask("ls " + gone), gone)

    def test_node_sizes_its_heap_by_the_limit(self):
        node = shutil.which("node")
        skip_without(node)
        node = os.path.realpath(node)
        self.import_program("node", {node, *libraries(node)}, Entrypoint=[
            node, "-e", "console.log(require('v8').getHeapStatistics().heap_size_limit,"
            "process.constrainedMemory())"])
        self.daemon.put("node", {"image": "node:1", "mode": "exec", "limits": LIMITS})
        reply = self.daemon.call("node", b"")
        self.assertEqual(reply.status, 200, repr(reply))
        heap, constrained = (int(word) for word in reply.text.split())
        self.assertLess(heap, MEMORY, reply.text)
        self.assertEqual(constrained, MEMORY)

    def test_java_sizes_itself_by_the_limits(self):
        java = shutil.which("java")
        skip_without(java)
        home = Path(os.path.realpath(java)).parents[1]
        lib, needed = home / "lib", r"lib(jvm|java|jli|jimage|nio|net|zip|verify|management)"
        wanted = {str(home / "bin/java"), str(lib / "modules"), str(lib / "jvm.cfg")}
        shared = [str(path) for path in lib.rglob("*.so") if re.search(needed, path.name)]
        conf = [str(path) for path in (home / "conf").rglob("*") if path.is_file()]
        paths = {*wanted, *shared, *conf, *libraries(str(home / "bin/java"), *shared)}
        paths = {path for path in paths if os.path.exists(path)}
        self.import_program("java", paths, Entrypoint=[
            str(home / "bin/java"), "-XX:+PrintFlagsFinal", "-XshowSettings:system", "-version"])
        self.daemon.put("java", {"image": "java:1", "mode": "exec", "limits": LIMITS})
        reply = self.daemon.call("java", b"")
        self.assertEqual(reply.status, 200, repr(reply))
        heap = int(re.search(r"\bMaxHeapSize\s*=\s*(\d+)", reply.text)[1])
        self.assertLessEqual(heap, MEMORY // 2)
        system = self.daemon.cli_ok("logs", "java")
        self.assertIn("Memory Limit: 768.00M", system)
        self.assertIn("Effective CPU Count: 1\n", system)


if __name__ == "__main__":
    unittest.main()
