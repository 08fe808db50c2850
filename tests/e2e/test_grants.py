"""grants.conf, from the deploy to the running function: what no line allows is refused with the
missing line; SIGHUP reads it anew; a device has one holder; a server on the host's network."""

import json
import os
import signal
import unittest

from harness import Case, Daemon, free_port, skip_unless, wait_until

PROBE = {"image": "probe:1", "mode": "exec"}
TTY = "/dev/tty"  # there on every board, and harmless


class Granted(Case):
    """Its daemon reads a file that a test writes."""

    @classmethod
    def setUpClass(cls):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.__exit__, None, None, None)
        cls.file = cls.daemon.temp / "grants.conf"
        cls.file.write_text("")
        cls.file.chmod(0o644)
        cls.daemon.flags += ["--grants", str(cls.file)]
        cls.daemon.start()
        cls.daemon.import_sample("probe")
        cls.daemon.import_sample("http-hello")

    def grant(self, *lines):
        """Writes the file and waits until it is read."""
        seen = self.daemon.log().count(str(self.file) + ": ")
        self.file.write_text("".join(line + "\n" for line in lines))
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.log().count(str(self.file) + ": ") > seen, 30,
                   "the launcher reads the grants")

    def test_what_is_not_granted_is_refused_with_the_line_that_is_missing(self):
        self.grant()
        for wish, line in (
                ({"capabilities": ["CHOWN"]}, "capability CHOWN functions=openfaas-fn/wish"),
                ({"devices": ["gpio:/dev/gpiochip0"]},
                 "device gpio /dev/gpiochip0 functions=openfaas-fn/wish"),
                ({"volumes": [{"host": "/srv", "path": "/srv", "read_only": True}]},
                 "host-directory /srv read-only functions=openfaas-fn/wish"),
                ({"network": {"mode": "host"}}, "network host functions=openfaas-fn/wish")):
            reply = self.daemon.put("wish", {**PROBE, **wish}, expect=(422,))
            self.assertIn(line, reply.json()["error"]["message"])
        self.assertEqual(self.daemon.api("GET", "/v1/functions/wish").status, 404)

    def test_a_grant_comes_and_goes_with_the_file(self):
        self.grant("capability KILL functions=killer")
        self.daemon.put("killer", {**PROBE, "capabilities": ["KILL"]})
        self.assertIn("CapEff:\t0000000000000020", self.daemon.call("killer", path="/status").text)
        self.grant("capability CHOWN functions=killer")
        wait_until(lambda: "capability KILL" in self.daemon.call("killer", path="/status").text, 60,
                   "the grant is taken back, and calls are told")
        self.grant("capability KILL functions=*")
        wait_until(lambda: self.daemon.call("killer", path="/status").status == 200, 60,
                   "it runs again")

    def test_the_isolation_report_names_what_a_grant_opened(self):
        self.grant("# a comment", "capability KILL functions=killer", "nonsense")
        self.daemon.put("killer", {**PROBE, "capabilities": ["KILL"]})
        self.daemon.put("other", PROBE)
        self.daemon.call("killer", path="/status")

        def layers(name):
            described = self.daemon.api("GET", f"/v1/functions/{name}").json()
            return {layer["layer"]: layer for layer in described["isolation"]}
        opened = layers("killer")["capabilities"]
        self.assertEqual(opened["state"], "degraded")
        self.assertIn("by grant: KILL (grants.conf:2)", opened["why"])
        self.assertEqual(layers("other")["capabilities"]["state"], "present")
        for name in ("killer", "other"):
            self.assertIn(layers(name)["cgroup.devices"]["state"], ("present", "absent"))
        shown = self.daemon.cli("describe", "killer").stdout.decode()
        self.assertIn("capabilities degraded", shown)
        self.assertIn("KILL (grants.conf:2)", shown)
        self.grant("# moved", "", "", "capability KILL functions=*")
        wait_until(lambda: "KILL (grants.conf:4)" in layers("killer")["capabilities"]["why"], 60,
                   "the row follows the file")

    def test_a_function_is_the_owner_its_grant_names(self):
        shared = self.file.parent / "shared"
        shared.mkdir()
        os.chown(shared, 4000, 4001)
        wish = {**PROBE, "user": "5:6",
                "volumes": [{"host": str(shared), "path": "/shared"}]}
        self.grant(f"host-directory {shared} read-write owner=4000:4001 functions=writer")
        reply = self.daemon.api("PUT", "/v1/functions/writer", wish)
        if reply.status == 422:  # an old kernel, or a file system without
            self.assertIn("id-mapped mounts", reply.json()["error"]["message"])
            return
        self.assertEqual(self.daemon.call("writer", b"write /shared/note kept").status, 200)
        self.assertIn("5:6", self.daemon.call("writer", b"stat /shared/note").text)
        made = (shared / "note").stat()
        self.assertEqual((made.st_uid, made.st_gid), (4000, 4001))
        shown = self.daemon.cli("describe", "writer").stdout.decode()
        self.assertIn(f"{shared} as 4000:4001 (grants.conf:1)", shown)
        self.grant(f"host-directory {shared} read-write owner=4002 functions=writer")
        (shared / "note").unlink()
        os.chown(shared, 4002, 4002)

        def made_by_4002():
            self.daemon.call("writer", b"write /shared/note again")
            note = shared / "note"
            return note.exists() and note.stat().st_uid == 4002
        wait_until(made_by_4002, 60, "it goes on as the new owner")

    def test_where_owners_cannot_be_had_a_deploy_says_so(self):
        self.grant("host-directory /proc read-only owner=4000 functions=*")
        wish = {**PROBE, "volumes": [{"host": "/proc/sys", "path": "/data", "read_only": True}]}
        reply = self.daemon.put("nowhere", wish, expect=(422,))
        self.assertIn("owner=4000:4000 of grants.conf", reply.json()["error"]["message"])
        self.assertIn("id-mapped mounts", reply.json()["error"]["message"])

    def test_the_system_report_lists_the_grants_in_force(self):
        def grants():
            return self.daemon.api("GET", "/v1/system").json()["grants"]
        self.grant("nonsense", "capability KILL functions=a,b  # why")
        wait_until(lambda: grants() == [{"line": 2, "grant": "capability KILL functions=a,b"}], 60,
                   grants)
        self.grant()
        wait_until(lambda: grants() == [], 60, grants)

    def test_an_exclusive_device_has_one_holder(self):
        self.grant(f"device terminal {TTY} functions=one,other")
        wish = {**PROBE, "devices": ["terminal:" + TTY]}
        self.daemon.put("one", wish)
        self.assertIn("tty", self.daemon.call("one", path="/ls/dev").text)
        self.daemon.put("one", {**wish, "labels": {"again": "yes"}})
        reply = self.daemon.put("other", wish, expect=(409,))
        self.assert_error(reply, 409, "in_use", "held by openfaas-fn/one")
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/one").status, 204)
        wait_until(lambda: self.daemon.api("PUT", "/v1/functions/other", wish).status == 201, 60,
                   "the device is given back")

    def test_a_server_on_the_hosts_network_has_its_port_alone(self):
        self.grant("network host functions=*")
        port = free_port()
        spec = {"image": "http-hello:1", "mode": "http", "port": port, "network": {"mode": "host"}}
        reply = self.daemon.put("host", spec, expect=(400,))
        self.assertIn("scale.max", reply.json()["error"]["message"])
        self.daemon.put("host", {**spec, "scale": {"max": 1}})
        self.assertEqual(self.daemon.call("host").status, 200)
        self.daemon.put("host", {**spec, "scale": {"max": 1}, "labels": {"again": "yes"}})
        self.assertEqual(self.daemon.call("host").status, 200, "the old one made room")
        taken = {"max": 1, "queue_wait": "100ms", "min": 1}
        reply = self.daemon.put("taken", {**spec, "scale": taken}, expect=(409,))
        self.assertIn(f"port {port} of the host is in use", reply.json()["error"]["message"])

    def test_doctor_lists_grants_and_their_problems(self):
        self.grant("capability KILL functions=a", "nonsense")
        shown = self.daemon.cli("doctor", "--grants", str(self.file)).stdout.decode()
        self.assertIn("capability KILL functions=a", shown)
        self.assertIn(f"{self.file}:2: this line grants nothing", shown)
        told = json.loads(self.daemon.cli("doctor", "--json", "--grants", str(self.file)).stdout)
        self.assertEqual(told["grants"]["lines"], ["capability KILL functions=a"])
        self.assertEqual(len(told["grants"]["problems"]), 1)


if __name__ == "__main__":
    unittest.main()
