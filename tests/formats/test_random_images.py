"""200 random layered images: our importer's tree is umoci's, line by line.

  PULGA_FORMATS_SEED=7 PULGA_FORMATS_COUNT=1    one image, with the story of its layers
"""

import concurrent.futures
import dataclasses
import os
import random
import shutil
import tempfile
import time
import unittest
from pathlib import Path

import flatten
import shapes
from random_image import RandomImage
from shapes import archive

FIRST = int(os.environ.get("PULGA_FORMATS_SEED", "1"))
COUNT = int(os.environ.get("PULGA_FORMATS_COUNT", "200"))


def pack_somehow(image, seed):
    """One of the shapes and compressions, chosen by the seed; all say the same."""
    dice = random.Random(-seed - 1)
    pack, kind = dice.choice(((None, ""), (shapes.gzipped, "+gzip"), (shapes.zstd, "+zstd")))
    shape = dice.choice(("docker", "legacy", "skopeo", "kaniko", "oci", "buildkit"))
    data = {
        "docker": lambda: archive.docker_archive([image], dice.random() < 0.5),
        "legacy": lambda: archive.legacy_archive([image]),
        "skopeo": lambda: shapes.skopeo_like(image, pack),
        "kaniko": lambda: shapes.kaniko(image),
        "oci": lambda: shapes.oci(image, pack, shapes.MEDIA_LAYER + kind).tar(),
        "buildkit": lambda: shapes.buildkit(image),
    }[shape]()
    outer = dice.choice((None, None, shapes.gzipped, shapes.zstd))
    return outer(data) if outer else data


class RandomImages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        flatten.needs_tools("umoci", "zstd")
        flatten.own_mounts()
        cls.started_ns = time.time_ns() - 10**9
        cls.temp = Path(tempfile.mkdtemp(prefix="pulga-formats-", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.temp, True)

    def reference(self, seed):
        """umoci's tree of the image, walked and removed again; or why it refuses it."""
        root = self.temp / f"umoci-{seed}"
        try:
            flatten.umoci_unpack(self.temp / "layout", f"seed-{seed}", root)
            return flatten.walk(root)
        except AssertionError as error:
            return str(error)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def make(self, seed, layout):
        made = RandomImage(seed)
        image = archive.Image([f"random:{seed}"], made.layers, {"Cmd": ["/x"]})
        layout.manifests.append(layout.manifest(
            image, annotations={"org.opencontainers.image.ref.name": f"seed-{seed}"}))
        (self.temp / f"{seed}.tar").write_bytes(pack_somehow(image, seed))
        return made

    def test_they_are_what_umoci_makes_of_them(self):
        layout = shapes.Layout()
        made = {seed: self.make(seed, layout) for seed in range(FIRST, FIRST + COUNT)}
        layout.write(self.temp / "layout")
        failures = []
        with concurrent.futures.ThreadPoolExecutor(2) as pool, \
                flatten.Importer(self.temp / "ours") as ours:
            references = pool.map(self.reference, made)
            for seed, expected in zip(made, references):
                trouble = self.compare(ours, seed, expected)
                if trouble:
                    failures.append(f"seed {seed}: {trouble}")
                    if COUNT == 1:
                        failures.append("\n".join(made[seed].story))
        self.assertFalse(failures, f"{len(failures)} of {COUNT}:\n" + "\n".join(failures[:10])
                         + "\nalone: PULGA_FORMATS_COUNT=1 PULGA_FORMATS_SEED=...")

    def compare(self, ours, seed, expected):
        if isinstance(expected, str):
            return "made wrong, umoci refuses it: " + expected
        name = f"seed-{seed}"
        answer = ours.add(name, self.temp / f"{seed}.tar")
        (self.temp / f"{seed}.tar").unlink()
        if answer.failure or len(answer.images) != 1:
            return "not imported: " + answer.failure
        for mine, wanted in ((ours.tree(name), flatten.tree_lines(expected)),
                             (ours.sums(name), flatten.sum_lines(expected))):
            if mine != wanted:
                return "our listing differs\n" + flatten.differences(wanted, mine)
        mounted = ours.walk(answer.images[0][2])
        return "\n".join(f"{path!r}: expected {node}, found {mounted[path]}"
                         for path, node in sorted(expected.items())
                         if not self.agree(node, mounted[path]))

    def agree(self, wanted, found):
        """A directory that was made or filled without being named has no time of its own."""
        if wanted.letter == "d" and wanted.mtime_ns > self.started_ns:
            found = dataclasses.replace(found, mtime_ns=wanted.mtime_ns)
        return wanted == found


if __name__ == "__main__":
    unittest.main()
