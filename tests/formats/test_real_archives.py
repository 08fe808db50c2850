"""Archives by the real tools: our importer's tree is the one umoci, docker export or podman's mount
shows, line by line, whoever wrote the archive and however."""

import shutil
import tempfile
import unittest
from pathlib import Path

import flatten
import make_archives
from make_archives import Maker


class RealArchives(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        flatten.needs_tools(*make_archives.TOOLS)
        flatten.own_mounts(*make_archives.FIXED_PLACES)
        cls.temp = Path(tempfile.mkdtemp(prefix="pulga-formats-", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.temp, True)

    def check(self, make, least):
        maker = Maker(self.temp / make.__name__)
        make(maker)
        self.assertGreaterEqual(len(maker.made), least)
        with flatten.Importer(self.temp / f"ours-{make.__name__}") as ours:
            for made in maker.made:
                with self.subTest(made.name):
                    self.check_archive(ours, made)
            for name, message in maker.refused.items():
                with self.subTest(name):
                    self.assertIn(message, ours.add(name, maker.path(name)).failure)

    def test_by_hand(self):
        self.check(Maker.by_hand, 15)

    def test_umoci(self):
        self.check(Maker.umoci, 1)

    def test_podman_buildah_and_skopeo(self):
        self.check(Maker.containers, 12)

    def test_docker(self):
        self.check(Maker.docker, 8)

    def check_archive(self, ours, made):
        answer = ours.add(made.name, made.path)
        made.path.unlink()
        self.assertFalse(answer.failure, f"{made.name}: {answer.failure}")
        names = {}
        for number, (digest, refs, layers) in enumerate(answer.images):
            for ref in refs or [""]:
                names[ref.removeprefix("docker.io/library/")] = number, digest, layers
        if list(made.trees) == ["*"]:
            made.trees = {next(iter(names)): made.trees["*"]}
        self.assertEqual(sorted(names), sorted(made.trees), f"{made.name}: names")
        for name, expected in made.trees.items():
            number, digest, layers = names[name]
            self.compare(ours, made.name, number, expected)
            self.assertEqual(made.digests.get(name, digest), digest, f"{made.name}: ImageID")
            mounted = ours.walk(layers)
            for path, node in expected.items():
                self.assertEqual(mounted[path], node, f"{made.name}: {path!r}")

    def compare(self, ours, name, number, expected):
        for found, wanted in ((ours.tree(name, number), flatten.tree_lines(expected)),
                              (ours.sums(name, number), flatten.sum_lines(expected))):
            if found != wanted:
                self.fail(f"{name}:\n" + flatten.differences(wanted, found))


if __name__ == "__main__":
    unittest.main()
