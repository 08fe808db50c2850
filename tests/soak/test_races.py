"""Names swapped for symlinks while somebody works on them (S07, S10). Whoever could do that is root
already; the launcher and the unpacker must hold all the same. PULGA_SOAK_SECONDS each."""

import ctypes
import os
import shutil
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import IMAGES, Case, background, image_archive, image_of, probe_binary  # noqa: E402

SECONDS = float(os.environ.get("PULGA_SOAK_SECONDS", "120"))
EXCHANGE = 2
libc = ctypes.CDLL(None, use_errno=True)


def exchange(one, other):
    """Both names change places, in one step. False: one of them is not there."""
    return libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), EXCHANGE) == 0


class Swapper(background):
    """While its block runs, every directory of `folder` is now and then a symlink to the trap."""

    def __init__(self, folder, trap, aside):
        super().__init__()
        self.folder, self.trap, self.aside, self.swaps = folder, trap, aside, 0

    def watch(self):
        lure = self.aside / "lure"
        while not self.stopping.is_set():
            for name in os.listdir(self.folder):
                place = self.folder / name
                if place == self.aside or place.is_symlink() or not place.is_dir():
                    continue
                lure.unlink(missing_ok=True)
                lure.symlink_to(self.trap)
                if exchange(lure, place):
                    self.swaps += 1
                    time.sleep(0.0005 * (self.swaps % 4))
                    if not exchange(lure, place):
                        self.put_back(lure, place)

    @staticmethod
    def put_back(lure, place):
        """The symlink was removed meanwhile, as any layer may be."""
        if lure.is_dir() and not lure.is_symlink():
            if place.exists():
                shutil.rmtree(lure)
            else:
                lure.rename(place)


class Races(Case):
    maxDiff = None

    def setUp(self):
        self.trap = self.daemon.temp / "trap"
        self.aside = self.daemon.data / "layers" / ".aside"  # on the same file system
        for folder in (self.trap, self.aside):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o777)
        (self.trap / "secret").write_text("secret of the host")
        (self.trap / "probe").write_bytes(probe_binary())
        (self.trap / "probe").chmod(0o755)
        self.before = self.trapped()

    def trapped(self):
        return sorted((str(p.relative_to(self.trap)), p.lstat().st_mtime_ns, p.lstat().st_mode)
                      for p in self.trap.rglob("*"))

    def tearDown(self):
        self.assertEqual(self.trapped(), self.before, "something was written outside")
        shutil.rmtree(self.aside, ignore_errors=True)
        super().tearDown()

    def test_layers_while_versions_are_built(self):
        self.daemon.import_sample("probe")
        end, turns, built = time.monotonic() + SECONDS, 0, 0
        with Swapper(self.daemon.data / "layers", self.trap, self.aside) as swapper:
            while time.monotonic() < end:
                turns += 1
                name = f"f{turns % 5}"
                put = self.daemon.api("PUT", "/v1/functions/" + name, {
                    "image": "probe:1", "mode": "exec", "env": {"TURN": str(turns)},
                    "scale": {"parked": 0}})
                reply = self.daemon.call(name, b"ls /; cat /secret")
                self.assertNotIn(b"secret of", reply.body, "the trap was its root")
                if put.status < 300:
                    built += 1
                else:
                    self.assertGreaterEqual(put.status, 400, repr(put))
                    self.assertNotIn(str(self.trap), put.text)
        print(f"{turns} versions, {built} built, while names were swapped {swapper.swaps} times")
        self.assertGreater(swapper.swaps, 10)
        self.assertGreater(built, 0)
        for n in range(5):
            self.daemon.api("DELETE", f"/v1/functions/f{n}")

    def test_layers_and_staging_while_images_come_and_go(self):
        end, turns, taken = time.monotonic() + SECONDS, 0, 0
        with Swapper(self.daemon.data / "layers", self.trap, self.aside) as swapper:
            while time.monotonic() < end:
                turns += 1
                image = image_of({"probe": probe_binary(), f"etc/turn{turns}": b"x" * 1000},
                                 f"turn:{turns % 4}", Entrypoint=["/probe"])
                data = image_archive.docker_archive([image])
                reply = self.daemon.request("POST", "/v1/images", data,
                                            {"Content-Type": "application/x-tar"}, 120, True)
                taken += reply.status < 300
                if turns % 3 == 0:
                    self.daemon.api("DELETE", f"/v1/images/turn:{turns % 4}")
        print(f"{turns} imports, {taken} taken, while names were swapped {swapper.swaps} times")
        self.assertGreater(taken, 0)
        self.daemon.import_archive((IMAGES / "probe.tar").read_bytes())


if __name__ == "__main__":
    unittest.main()
