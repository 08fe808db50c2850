"""32-bit ARM programs on a 64-bit ARM board (case S58), in the guest of scripts/vm-test with --arch
arm64: they run, their filter knows their calls, and no other version's lets such calls in."""

import errno
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import (BIN, ROOT, Case, image_archive, image_of, probe_binary,  # noqa: E402
                     skip_unless)
from test_escape import listed_names  # noqa: E402

PROGRAMS = BIN / "rootfs/arm32"
# Of real images, which lie beside the project or do not.
CORPUS = Path(os.environ.get("PULGA_CORPUS_DIR", ROOT.parent / "shared/images"))
BUSYBOX = CORPUS / "03-busybox-armv7-docker25-save.tar"
EPERM, EFAULT, ENOSYS, EAFNOSUPPORT = 1, 14, 38, 97
# By ARM's own numbers.
CLOCK_GETTIME64, FUTEX_TIME64, PPOLL_TIME64, CLOCK_SETTIME64 = 403, 422, 414, 404
CACHEFLUSH, SET_TLS, UNKNOWN_PRIVATE = 0xf0002, 0xf0005, 0xf0007
PTRACE, SETUID32, SYSLOG, PERSONALITY, CLONE3 = 26, 213, 103, 136, 435
ADDR_NO_RANDOMIZE = 0x40000


def arm32(name):
    return (PROGRAMS / name).read_bytes()


def listed_numbers():
    """{number: name} of what sandbox/syscalls.txt lets a function make, by ARM's numbers."""
    text = (PROGRAMS / "calls.h").read_text()
    numbers = {"fchmodat2": 452}  # newer than the headers
    numbers |= dict(re.findall(r"#define __NR_(\w+) \(__NR_SYSCALL_BASE ?\+ ?(\d+)\)", text))
    names = listed_names()
    return {int(number): name for name, number in numbers.items() if name in names}


def archive_of(files, tag, architecture="arm", variant="v7", **config):
    image = image_of(files, tag, **config)
    image.architecture, image.variant = architecture, variant
    return image_archive.docker_archive([image])


def needs_board():
    skip_unless(os.uname().machine == "aarch64", "this is no 64-bit ARM board")
    skip_unless((PROGRAMS / "probe").exists(),
                "no 32-bit ARM compiler when this was built: scripts/setup test --arm64")


class Arm32(Case):
    @classmethod
    def setUpClass(cls):
        needs_board()
        super().setUpClass()

    @classmethod
    def prepare(cls):
        cls.daemon.import_archive(archive_of({"probe": arm32("probe"), "script": b"#!/probe say\n",
                                              "other": probe_binary()},
                                             "small:1", Entrypoint=["/probe"]))
        cls.daemon.put("small", {"image": "small:1", "mode": "exec"})

    def ask(self, *deeds, name="small"):
        reply = self.daemon.call(name, "; ".join(deeds).encode())
        self.assert_outcome(reply, 200, "ok")
        return reply.text

    def errno_of(self, number, *arguments):
        words = " ".join(str(word) for word in (number, *arguments))
        found = re.search(r"syscall: (?:ok|errno (\d+))", self.ask("syscall " + words))
        return int(found[1] or 0)

    def refused(self, name="small"):
        return self.daemon.api("GET", "/v1/functions/" + name).json()["refused_calls"]["by_name"]

    def layer(self, name):
        layers = self.daemon.api("GET", "/v1/functions/" + name).json()["isolation"]
        return next(layer for layer in layers if layer["layer"] == "seccomp")

    def test_the_program_is_a_32_bit_one_and_runs(self):
        self.assertEqual(arm32("probe")[4:6] + arm32("probe")[18:20], b"\x01\x01\x28\x00")
        self.assertEqual(self.ask("say fine"), "fine\n")
        self.assert_outcome(self.daemon.call("small", b"exit 3"), 500, "exited:3")
        self.assert_outcome(self.daemon.call("small", b"segv"), 500, "signaled:SIGSEGV")
        self.assertIn("Seccomp:\t2", self.ask("caps"))
        self.assertIn("32-bit ARM", self.layer("small")["why"])

    def test_calls_with_times_of_64_bits_are_there(self):
        self.assertEqual(self.errno_of(CLOCK_GETTIME64, 1, 0), EFAULT)
        self.assertEqual(self.errno_of(FUTEX_TIME64, 0, 1), EFAULT)  # FUTEX_WAKE of nothing mapped
        self.assertEqual(self.errno_of(PPOLL_TIME64, 0, 0, 8), EFAULT)

    def test_arms_private_calls_are_there(self):
        self.assertEqual(self.errno_of(SET_TLS, 0), 0)
        self.assertEqual(self.errno_of(CACHEFLUSH, 0, 0, 0), 0)
        self.assertEqual(self.errno_of(UNKNOWN_PRIVATE), ENOSYS)

    def test_what_the_list_refuses_is_refused_and_counted_by_name(self):
        before = self.refused()
        self.assertEqual(self.errno_of(PTRACE), EPERM)
        self.assertEqual(self.errno_of(SYSLOG, 3), EPERM)
        self.assertEqual(self.errno_of(PERSONALITY, ADDR_NO_RANDOMIZE), EPERM)
        self.assertEqual(self.errno_of(SETUID32, 65536), 22)
        self.assertEqual(self.errno_of(CLONE3), ENOSYS)
        self.assertEqual(self.errno_of(CLOCK_SETTIME64, 0, 0), ENOSYS)
        for deeds in ("mount", "unshare net", "socket 17 3 0"):
            self.assertRegex(self.ask(deeds), "errno (1|97)")
        after = self.refused()
        more = {name: count - before.get(name, 0) for name, count in after.items()
                if count != before.get(name, 0)}
        for name in ("ptrace", "syslog", "personality", "setuid32", "mount", "unshare", "socket"):
            self.assertEqual(more.get(name), 1, f"{name}: {more}")
        self.assertNotIn("clone3", more)

    def test_no_call_but_those_of_the_list_arrives(self):
        passed = set()
        for first, last in ((0, 150), (151, 300), (301, 460)):
            lines = self.ask(f"syscalls {first} {last}").splitlines()
            self.assertEqual(len(lines), last - first + 1, lines)
            for number, how, value in map(str.split, lines):
                if not (how == "errno" and int(value) in (EPERM, ENOSYS)):
                    passed.add(int(number))
        listed = listed_numbers()
        self.assertEqual({n for n in passed if n not in listed}, set())
        self.assertGreater(len(passed), 150, "the probe's calls do not arrive")
        self.assertEqual(self.ask("say fine"), "fine\n")

    def test_a_script_runs_with_the_filter_of_its_interpreter(self):
        self.daemon.put("script", {"image": "small:1", "mode": "exec", "command": ["/script"]})
        reply = self.daemon.call("script", b"")
        self.assert_outcome(reply, 200, "ok")
        self.assertIn("/script", reply.text)
        self.assertIn("32-bit ARM", self.layer("script")["why"])

    def test_a_32_bit_program_may_start_one_of_the_board(self):
        self.assertIn("ran", self.ask("exec /other"))

    def test_http_functions_answer(self):
        self.daemon.import_archive(archive_of({"hello": arm32("http_hello")}, "small-web:1",
                                              Entrypoint=["/hello"]))
        self.daemon.put("web", {"image": "small-web:1", "mode": "http"})
        for _ in range(3):
            self.assertEqual(self.daemon.call("web", path="/").status, 200)

    def test_a_program_of_the_board_gets_no_32_bit_calls(self):
        files = {"probe": probe_binary(), "small": arm32("probe")}
        self.daemon.import_archive(archive_of(files, "large:1", "arm64", "", Entrypoint=["/probe"]))
        self.daemon.put("large", {"image": "large:1", "mode": "exec"})
        self.assertEqual(self.ask("say fine", name="large"), "fine\n")
        self.assertNotIn("32-bit", self.layer("large").get("why", ""))
        self.assert_outcome(self.daemon.call("large", b"exec /small"), 500, "syscall-denied")

    def test_images_for_another_processor_stay_refused(self):
        data = archive_of({"x": b"x"}, "foreign:1", "386", "", Entrypoint=["/x"])
        reply = self.daemon.import_archive(data, expect=(422,))
        self.assertIn("this image is linux/386, this board is linux/arm64", reply.text)

    if BUSYBOX.exists():
        def test_the_busybox_of_a_real_image_runs(self):
            self.daemon.import_archive(BUSYBOX.read_bytes(), query="?ref=busybox:armv7")
            script = "read word; sleep 0.1; echo $word $((6 * 7)); date +%Y; ls /bin/sh | wc -l"
            self.daemon.put("busybox", {"image": "busybox:armv7", "mode": "exec",
                                        "command": ["sh", "-c", script]})
            reply = self.daemon.call("busybox", b"fine\n")
            self.assert_outcome(reply, 200, "ok")
            self.assertRegex(reply.text, r"\Afine 42\n20\d\d\n1\n\Z")
            self.assertEqual(self.refused("busybox"), {})


class Without32BitMode(Case):
    """By hand, on a processor that has none: CONTRIBUTING.md tells the command."""

    @classmethod
    def setUpClass(cls):
        needs_board()
        try:
            subprocess.run([PROGRAMS / "probe", "say ran"], check=True, capture_output=True)
        except OSError as error:
            cls.refusal = error
        else:
            skip_unless(False, "this board runs 32-bit ARM programs")
        super().setUpClass()

    def test_the_import_and_the_deploy_say_why(self):
        self.assertEqual(self.refusal.errno, errno.ENOEXEC)
        data = archive_of({"probe": arm32("probe")}, "small:1", Entrypoint=["/probe"])
        reply = self.daemon.import_archive(data, expect=(422,))
        self.assertIn("this image is linux/arm/v7, this board is linux/arm64, which runs no such "
                      "32-bit programs", reply.text)
        self.daemon.import_archive(data, query="?any_platform=1")
        reply = self.daemon.api("PUT", "/v1/functions/small", {"image": "small:1"})
        self.assertEqual(reply.status, 422, repr(reply))
        self.assertIn("CONFIG_COMPAT", reply.text)

    def test_a_program_that_only_its_head_tells_is_refused_too(self):
        files = {"probe": probe_binary(), "small": arm32("probe")}
        self.daemon.import_archive(archive_of(files, "large:1", "arm64", "", Entrypoint=["/small"]))
        reply = self.daemon.api("PUT", "/v1/functions/large", {"image": "large:1", "mode": "exec"})
        self.assertEqual(reply.status, 422, repr(reply))
        self.assertIn("this board runs no 32-bit ARM programs", reply.text)


if __name__ == "__main__":
    unittest.main()
