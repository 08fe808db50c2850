"""A hundred thousand launches, each a whole sandbox, and nothing stays. PULGA_SOAK_LAUNCHES."""

import http.client
import os
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import leaks  # noqa: E402 (the folder must be on the path first)
from harness import Case, wait_until  # noqa: E402

LAUNCHES = int(os.environ.get("PULGA_SOAK_LAUNCHES", "100000"))
THREADS = 4


def write_figure(text):
    print(text)
    if os.environ.get("PULGA_SOAK_FIGURES"):
        with open(os.environ["PULGA_SOAK_FIGURES"], "a", encoding="utf-8") as file:
            file.write(text + "\n")


class Launches(Case):
    flags = ("--idle", "1s")

    @classmethod
    def prepare(cls):
        limits = {"memory": "16Mi", "pids": 16}
        cls.daemon.deploy_probe("parked", limits=limits, scale={"max": 8, "parked": 4})
        cls.daemon.put("cold", {"image": "probe:1", "mode": "exec", "limits": limits,
                                "scale": {"max": 8, "parked": 0}})

    def quiet(self):
        wait_until(lambda: len(self.daemon.processes()) == 3, 60,
                   lambda: f"keeper, launcher and daemon alone: {self.daemon.processes()}")
        return leaks.quiet_snapshot(self.daemon, 60)

    def launch(self, count):
        """`count` calls over kept connections, every second one cold."""
        wrong = []

        def run(first):
            connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
            for number in range(first, count, THREADS):
                body = b"say %d" % number
                name = "cold" if number // THREADS % 2 else "parked"
                try:
                    connection.request("POST", "/function/" + name, body)
                    reply = connection.getresponse()
                    said = reply.read()
                    if reply.status != 200 or said != b"%d\n" % number:
                        wrong.append((number, reply.status, said[:200]))
                except (OSError, http.client.HTTPException) as error:
                    wrong.append((number, repr(error)))
                    connection.close()
            connection.close()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return wrong

    def test_nothing_stays_of_a_hundred_thousand_launches(self):
        self.assertEqual(self.launch(2000), [])  # first use of everything
        before, begun = self.quiet(), time.monotonic()
        self.assertEqual(self.launch(LAUNCHES)[:3], [])
        seconds = time.monotonic() - begun
        self.quiet()
        lines, after = leaks.later_differences(before, self.daemon)
        write_figure(f"{LAUNCHES} launches in {seconds:.0f} s ({LAUNCHES / seconds:.0f} a second), "
                     f"{'nothing' if not lines else lines} stayed\nbefore: {before.figures()}\n"
                     f"after:  {after.figures()}")
        self.assertEqual(lines, "")


if __name__ == "__main__":
    unittest.main()
