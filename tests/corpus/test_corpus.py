"""The archives of real images give the golden trees through the daemon and its command line."""

import csv
import hashlib
import json
import os
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from harness import Case  # noqa: E402

CORPUS = Path(os.environ["PULGA_CORPUS_DIR"])


def digest16(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def golden_archives():
    with open(CORPUS / "CORPUS.tsv", newline="") as listing:
        for row in csv.DictReader(listing, delimiter="\t", quoting=csv.QUOTE_NONE):
            golden = dict(re.findall(r"\b(entries|meta|content)=([0-9a-f]+)", row["notes"]))
            if len(golden) == 3:
                yield CORPUS / row["file"], golden


class Corpus(Case):
    def test_every_archive_gives_its_golden_tree(self):
        archives = list(golden_archives())
        self.assertGreaterEqual(len(archives), 6)
        for path, golden in archives:
            with self.subTest(path.name):
                self.check(path, golden)

    def check(self, path, golden):
        command = ("image", "import", str(path), "--any-platform", "--json")
        image = json.loads(self.daemon.cli_ok(*command))["images"][0]
        name = image["digest"]
        tree = self.daemon.cli_ok("image", "inspect", name, "--tree")
        sums = self.daemon.cli_ok("image", "inspect", name, "--sums")
        self.assertEqual(tree.count("\n"), int(golden["entries"]))
        self.assertEqual(digest16(tree), golden["meta"])
        self.assertEqual(digest16(sums), golden["content"])
        self.daemon.cli_ok("image", "rm", name)


if __name__ == "__main__":
    unittest.main()
