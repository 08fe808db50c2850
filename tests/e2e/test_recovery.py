"""What a start finds: layers gone, newer databases, imports cut off; and settings read again."""

import http.client
import os
import shutil
import signal
import sqlite3
import time
import unittest

from harness import Daemon, image_archive, image_of, probe_binary, skip_unless, wait_until


def numbered_image(number):
    """An image of its own layer, so that the probe's stays what it is."""
    image = image_of({"app": probe_binary(), "number": str(number).encode()},
                     tag=f"numbered:{number}", Entrypoint=["/app"])
    return image_archive.docker_archive([image])


class Recovery(unittest.TestCase):
    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)

    def layers(self):
        return {path.name for path in (self.daemon.data / "layers").iterdir()
                if len(path.name) == 64}

    def test_a_lost_layer_breaks_its_functions_only_until_it_is_imported_again(self):
        self.daemon.start()
        self.daemon.deploy_probe()
        before = self.layers()
        self.daemon.import_archive(numbered_image(1))
        self.daemon.put("numbered", {"image": "numbered:1"})
        lost = self.layers() - before
        self.assertEqual(self.daemon.stop(), 0)
        for name in lost:
            shutil.rmtree(self.daemon.data / "layers" / name)
        self.daemon.start()
        wait_until(lambda: "missing on disk" in self.daemon.log(), 30, "the sweep")
        reply = self.daemon.call("numbered", b"say hi")
        self.assertEqual(reply.status, 503, repr(reply))
        self.assertIn("import the image again", reply.text)
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")
        self.assertEqual(self.daemon.import_archive(numbered_image(1)).status, 201)
        wait_until(lambda: self.daemon.call("numbered", b"say hi").text == "hi\n", 30, "the repair")

    def test_a_newer_database_stops_the_start_and_is_left_alone(self):
        self.daemon.start()
        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(self.daemon.data / "pulga.db") as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        with self.assertRaisesRegex(AssertionError, "did not start"):
            self.daemon.start(seconds=60)
        self.assertIn("newer Pulga (schema 99", self.daemon.log())

    def test_a_missing_database_is_not_made_anew_where_there_was_one(self):
        self.daemon.start()
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.stop(), 0)
        before = self.layers()
        (self.daemon.data / "pulga.db").unlink()
        with self.assertRaisesRegex(AssertionError, "did not start"):
            self.daemon.start(seconds=60)
        self.assertEqual(self.layers(), before)
        self.assertFalse((self.daemon.data / "pulga.db").exists())

    def test_an_import_cut_off_anywhere_is_there_whole_or_not_at_all(self):
        self.daemon.start()
        for number in range(6):
            killed = self.daemon.daemon_pid()
            archive = numbered_image(number)
            timer = os.fork()
            if timer == 0:
                time.sleep(0.01 * number)
                os.kill(killed, signal.SIGKILL)
                os._exit(0)
            try:
                self.daemon.import_archive(archive)
            except (OSError, http.client.HTTPException):
                pass  # the connection broke with the daemon
            os.waitpid(timer, 0)
            wait_until(lambda: self.daemon.daemon_pid() != killed and self.daemon.healthy(), 60,
                       "the next daemon")
            names = [ref for image in self.daemon.api("GET", "/v1/images").json()["images"]
                     for ref in image.get("refs", [])]
            whole = any(f"numbered:{number}" in ref for ref in names)
            reply = self.daemon.import_archive(archive)
            self.assertEqual(reply.status, 200 if whole else 201, repr(reply))
            self.assertEqual(len(self.layers()), number + 1)

    def test_a_bad_file_of_settings_changes_nothing_and_a_good_one_does(self):
        settings = self.daemon.temp / "pulga.conf"
        settings.write_text("upload-bytes = 1Ki\n")
        settings.chmod(0o644)
        self.daemon.flags = ["--config", str(settings)]
        self.daemon.start()
        archive = numbered_image(1)
        self.assertEqual(self.daemon.import_archive(archive, expect=(413,)).status, 413)
        settings.write_text("upload-bytes = 1Gi\nidel = 5s\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: 'line 2: unknown setting "idel"' in self.daemon.log(), 30, "a complaint")
        self.assertEqual(self.daemon.import_archive(archive, expect=(413,)).status, 413)
        settings.write_text("upload-bytes = 1Gi\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in self.daemon.log(), 30, "the reload")
        self.assertEqual(self.daemon.import_archive(archive).status, 201)


if __name__ == "__main__":
    unittest.main()
