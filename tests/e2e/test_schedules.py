"""Functions called by their schedule, by the daemon itself, over restarts and scaled to zero."""

import signal
import time
import unittest

from harness import OwnDaemonCase, wait_until


def cron(schedule, **more):
    return {"topic": "cron-function", "schedule": schedule, **more}


class Schedules(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.import_sample("probe")

    def deploy(self, name, annotations, *words):
        return self.daemon.put(name, {"image": "probe:1", "mode": "exec", "args": list(words),
                                      "scale": {"parked": 0}, "annotations": annotations})

    def runs(self, name):
        return self.daemon.api("GET", "/v1/tasks?function=" + name).json()["tasks"]

    def test_fires_each_minute_and_once_however_often_the_daemon_starts(self):
        reply = self.deploy("odd", cron("61 * * * *"), "env").json()
        self.assertTrue(any("annotations.schedule" in text for text in reply["warnings"]), reply)
        self.deploy("never", cron("0 0 31 2 *"), "env")
        self.deploy("plain", {"schedule": "* * * * *"}, "env")
        self.deploy("every", cron("* * * * *"), "env")
        first = wait_until(lambda: [t for t in self.runs("every") if t["state"] == "done"], 100,
                           "it was called")[-1]
        answer = self.daemon.api("GET", f"/v1/tasks/{first['id']}/result")
        self.assertIn("Http_X_Topic=cron-function", answer.text)
        self.assertEqual([self.runs(name) for name in ("odd", "never", "plain")], [[], [], []])
        # Restarts within that minute fire nothing more.
        began = time.time()
        count = len(self.runs("every"))
        for signo in (signal.SIGTERM, signal.SIGKILL):
            self.daemon.stop(signo)
            self.daemon.start()
            time.sleep(1)
        passed = int(time.time() // 60) - int(began // 60)
        self.assertLessEqual(len(self.runs("every")), count + passed)

    def test_a_time_zone_moves_the_next_run_and_one_that_is_none_is_refused(self):
        zone = {"timezone": "Asia/Kolkata"}  # five and a half hours ahead, all year
        reply = self.deploy("daily", cron("0 3 * * *", **zone), "env")
        self.assertEqual(reply.status, 201, reply.text)
        self.assertEqual(reply.json()["warnings"], [])
        self.assertRegex(reply.json()["next_run"], "T21:30:00")
        self.deploy("utc", cron("0 3 * * *"), "env")
        self.deploy("own", cron("CRON_TZ=Asia/Kolkata 0 4 * * *"), "env")
        self.deploy("plain", {}, "env")
        told = [self.daemon.api("GET", "/v1/functions/" + name).json()["next_run"]
                for name in ("daily", "utc", "own")]
        self.assertEqual([text[10:] for text in told],
                         ["T21:30:00.000Z", "T03:00:00.000Z", "T22:30:00.000Z"])
        self.assertIsNone(self.daemon.api("GET", "/v1/functions/plain").json()["next_run"])
        shown = self.daemon.cli_ok("describe", "daily")
        self.assertIn(told[0], shown)
        for annotations, named in ((cron("0 3 * * *", timezone="Europe/Nowhere"), "timezone"),
                                   (cron("TZ=../../x 0 3 * * *"), "schedule"),
                                   (cron("0 3 * * *", timezone="../../etc/passwd"), "timezone")):
            refused = self.daemon.api("PUT", "/v1/functions/bad", {
                "image": "probe:1", "mode": "exec", "args": ["env"], "annotations": annotations})
            self.assertEqual(refused.status, 400, refused.text)
            self.assertIn("annotations." + named + ": no time zone", refused.text)
        self.assertEqual(self.daemon.api("GET", "/v1/functions/bad").status, 404)


if __name__ == "__main__":
    unittest.main()
