"""Many functions at once: what each adds to the daemon, and that the list of them stays cheap."""

import unittest
from pathlib import Path

from harness import SANITIZED, Case


class Many(Case):
    MOST_EACH = 13 << 10  # nine KiB with a spawner, six without; it was eighteen

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe("first")

    def deploy(self, names):
        for name in names:
            reply = self.daemon.api("PUT", f"/v1/functions/{name}", {"image": "probe:1"})
            self.assertEqual(reply.status, 201, reply)

    def anonymous_bytes(self):
        text = Path(f"/proc/{self.daemon.daemon_pid()}/smaps_rollup").read_text()
        return int(text.split("\nAnonymous:")[1].split()[0]) << 10

    def test_a_function_takes_little_of_the_daemon(self):
        self.deploy(f"warm-up-{number}" for number in range(40))
        before = self.anonymous_bytes()
        self.deploy(f"many-{number}" for number in range(100))
        each = (self.anonymous_bytes() - before) / 100
        if not SANITIZED:  # whose allocator keeps everything for a while
            self.assertLess(each, self.MOST_EACH, f"{each / 1024:.1f} KiB")
        listed = self.daemon.api("GET", "/v1/functions").json()["functions"]
        self.assertEqual(len(listed), 141)
        for name in ("costs", "decisions", "refused_calls", "keep_alive"):
            self.assertNotIn(name, listed[0])
            self.assertIn(name, self.daemon.api("GET", "/v1/functions/first").json())


if __name__ == "__main__":
    unittest.main()
