"""What a function can see and do, asked by the probe from inside; the S cases of the contract."""

import os
import re
import socket
import threading
import time
import unittest

from harness import image_archive as archive
import leaks
from harness import SANITIZED, Case, probe_binary, skip_unless, wait_until
from image_archive import Entry, Image


class Inside(Case):
    """The same answers in both lives: a parked and woken sandbox, and one built cold."""

    parked = 1

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(scale={"parked": cls.parked}, limits={"pids": 24, "tmp": "1Mi",
                                                                      "nofile": 64})

    def ask(self, *deeds):
        reply = self.daemon.call("probe", "; ".join(deeds).encode())
        self.assertEqual(reply.status, 200, repr(reply))
        return reply.text

    def assert_all_fail(self, text, *allowed):
        lines = [li for li in text.splitlines() if ": " in li]
        self.assertTrue(lines, text)
        for line in lines:
            self.assertRegex(line, r"errno \d+$", text)
            if allowed:
                self.assertIn(int(line.rsplit(" ", 1)[1]), allowed, text)

    def test_only_the_three_standard_descriptors(self):
        lines = self.ask("fds").splitlines()
        self.assertEqual(sorted(line.split(" ")[0] for line in lines), ["0", "1", "2"])
        for line in lines:
            self.assertNotIn(str(self.daemon.data), line)

    def test_no_capability_in_any_set_and_a_filter(self):
        for line in self.ask("caps").splitlines():
            name, value = line.split(":\t")
            if name.startswith("Cap"):
                self.assertEqual(int(value, 16), 0, line)
        self.assertIn("NoNewPrivs:\t1", self.ask("caps"))
        self.assertIn("Seccomp:\t2", self.ask("caps"))

    def test_namespaces_of_its_own(self):
        for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
            inside = self.ask("ls /proc/self/ns")
            line = next(li for li in inside.splitlines() if li.startswith(kind + " "))
            self.assertNotEqual(line.split(" -> ")[1], os.readlink(f"/proc/self/ns/{kind}"))

    def test_new_namespaces_are_refused(self):
        for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
            self.assert_all_fail(self.ask(f"unshare {kind}"), 1, 22, 38)
        self.assert_all_fail(self.ask("setns"), 1)

    def test_mounting_tracing_and_chroot_are_refused(self):
        self.assert_all_fail(self.ask("mount", "mount proc /proc", "mount cgroup /tmp", "ptrace",
                                      "chroot /tmp"), 1)

    def test_devices_cannot_be_made(self):
        self.assert_all_fail(self.ask("mknod"), 1)

    def test_only_the_listed_socket_families(self):
        for family in list(range(0, 46)):
            answer = self.ask(f"socket {family}").strip()
            if family in (1, 2, 10):
                self.assertEqual(answer, "socket: ok", family)
            elif family == 16:
                self.assertEqual(self.ask("socket 16 3 0").strip(), "socket: ok")
                self.assertIn("errno 97", self.ask("socket 16 3 9"))
            else:
                self.assertIn("errno 97", answer, family)

    def test_the_root_is_read_only(self):
        self.assert_all_fail(self.ask("write /new", "write /probe", "write /etc/hosts",
                                      "mkdir /dir", "write /proc/sys/kernel/hostname"),
                             1, 2, 13, 30, 26)

    def test_tmp_is_private_and_bounded(self):
        self.assertIn("ok", self.ask("write /tmp/f"))
        text = self.ask("tmpfill")
        self.assertIn("errno 28", text)
        self.assertLessEqual(int(text.split()[0]), 1 << 20)

    def test_masked_and_read_only_proc(self):
        self.assert_all_fail(self.ask("write /proc/sysrq-trigger b",
                                      "write /proc/self/oom_score_adj -1000",
                                      "write /proc/sys/kernel/core_pattern x"))
        for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"):
            text = self.ask("cat " + path)
            self.assertTrue(text == "" or "errno" in text, path)

    def test_the_device_directory_is_minimal(self):
        names = {line.split(" ")[0] for line in self.ask("ls /dev").splitlines()}
        self.assertLessEqual({"null", "zero", "urandom"}, names)
        self.assertLessEqual(names, {"null", "zero", "full", "random", "urandom", "tty", "fd",
                                     "stdin", "stdout", "stderr", "shm", "mqueue", "pts", "ptmx",
                                     "core", ".mask"})

    def test_mounts_show_nothing_of_the_host(self):
        text = self.ask("mounts")
        self.assertNotIn(str(self.daemon.temp), text)
        self.assertNotIn("/var/lib", text)
        self.assertNotIn("shared:", text)
        self.assertLess(len(text.splitlines()), 30)

    def test_the_host_side_cgroup_name_is_hidden(self):
        for line in self.ask("cgroup").splitlines():
            self.assertTrue(line.endswith(":/"), line)

    def test_only_its_own_processes_are_seen_and_signalled(self):
        pids = [li for li in self.ask("ls /proc").splitlines() if li.isdigit()]
        self.assertLessEqual(len(pids), 2)
        self.assert_all_fail(self.ask("kill 4242 9"), 3)
        self.assertNotEqual(self.ask("kill 1 9; say alive"), "")

    def test_the_network_holds_nothing(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            port = listener.getsockname()[1]
            self.assert_all_fail(self.ask(f"connect {port}", f"connect {self.daemon.port}",
                                          "connect 53 8 8 8 8", "connect 80 169 254 169 254"))
        # An instance being parked beside it has a pair of sockets without a name.
        named = [line for line in self.ask("cat /proc/net/unix").splitlines()[1:]
                 if len(line.split()) > 7]
        self.assertEqual(named, [])

    def test_limits_bite(self):
        self.assertIn("errno 11", self.ask("forkbomb 100"))
        self.assertIn("errno 24", self.ask("nofile"))

    def test_no_secret_of_ours_in_its_environment(self):
        text = self.ask("env", "cat /proc/1/environ")
        self.assertNotIn(self.daemon.key, text)
        self.assertNotIn(str(self.daemon.temp), text)

    def test_orphans_are_reaped(self):
        self.assertIn("orphan: ok", self.ask("orphan 200 1"))

    def test_dangerous_calls_are_denied(self):
        # add_key keyctl bpf perf_event_open userfaultfd io_uring_setup process_vm_readv kcmp
        # pidfd_getfd open_by_handle_at reboot init_module swapon settimeofday (x86_64 numbers)
        skip_unless(os.uname().machine == "x86_64", "system call numbers of x86_64")
        for number in (248, 250, 321, 298, 323, 425, 310, 312, 438, 304, 169, 175, 167, 164):
            self.assert_all_fail(self.ask(f"syscall {number}"), 1, 38)

    def test_a_crash_leaves_no_core_on_the_host(self):
        # Both: a core_pattern that names a program of the host knows no limit (core(5)).
        self.assertRegex(self.ask("cat /proc/self/limits"), r"Max core file size +0 +0 +bytes")
        if os.path.exists("/proc/self/coredump_filter"):  # CONFIG_ELF_CORE
            self.assertEqual(self.ask("cat /proc/self/coredump_filter"), "00000000\n")
        before = set(os.listdir("/"))
        self.assert_outcome(self.daemon.call("probe", b"segv"), 500, "signaled:SIGSEGV")
        self.assertEqual(set(os.listdir("/")), before)


class InsideCold(Inside):
    parked = 0


class Report(Case):
    """The isolation report: of the board, and of what a version really got."""

    def test_the_board_tells_every_layer_and_why_one_lacks(self):
        layers = {layer["layer"]: layer
                  for layer in self.daemon.api("GET", "/v1/system").json()["isolation"]}
        self.assertLessEqual({"namespaces", "user_namespace", "id_range", "capabilities",
                              "no_new_privs", "seccomp", "cgroup.memory", "cgroup.pids",
                              "cgroup.cpu", "cgroup.io", "cgroup.devices", "landlock", "apparmor",
                              "cgroup_view", "cgroup.freezer", "read_only_root", "old_root",
                              "keyring", "id_mapped_layers", "network"}, set(layers))
        for layer in layers.values():
            self.assertIn(layer["state"], ("present", "degraded", "absent", "unknown"), layer)
            if layer["state"] in ("degraded", "absent"):
                self.assertTrue(layer["why"], layer)
        doctor = self.daemon.cli("doctor").stdout.decode()
        self.assertIn("ISOLATION LAYER", doctor)
        self.assertRegex(doctor, r"no_new_privs +present")

    def test_a_function_tells_what_its_version_got(self):
        self.daemon.deploy_probe("told")
        self.daemon.call("told", b"say hi")
        described = self.daemon.api("GET", "/v1/functions/told").json()
        layers = {layer["layer"]: layer["state"] for layer in described["isolation"]}
        for layer in ("no_new_privs", "seccomp", "capabilities", "cgroup_view"):
            self.assertEqual(layers[layer], "present", layers)
        board = {layer["layer"]: layer["state"]
                 for layer in self.daemon.api("GET", "/v1/system").json()["isolation"]}
        for layer in ("landlock", "apparmor", "seccomp.log"):
            self.assertEqual(layers[layer], board[layer])

    def test_a_function_tells_its_limits_and_ids_as_its_processes_have_them(self):
        self.daemon.deploy_probe("told", limits={"pids": 19, "memory": "24Mi", "nofile": 77})
        rows = {layer["layer"]: layer
                for layer in self.daemon.api("GET", "/v1/functions/told").json()["isolation"]}
        for name in ("user_namespace", "namespace.mount", "namespace.pid", "namespace.net",
                     "namespace.uts", "namespace.ipc", "namespace.cgroup", "read_only_root",
                     "old_root", "cgroup.memory", "cgroup.pids"):
            self.assertEqual(rows[name]["state"], "present", rows[name])
        for row in rows.values():
            self.assertTrue(row["state"] == "present" or row["why"], row)
        self.assertIn(str(24 << 20), rows["cgroup.memory"]["why"])
        self.assertIn("pids.max 19", rows["cgroup.pids"]["why"])
        self.assertIn("nofile 77", rows["rlimits"]["why"])
        first = self.daemon.call("told", b"cat /proc/self/uid_map").text.split()[1]
        self.assertIn(f"image ids are {first}", rows["id_range"]["why"])

    def test_refused_system_calls_are_told(self):
        system = self.daemon.api("GET", "/v1/system").json()
        log = next(li for li in system["isolation"] if li["layer"] == "seccomp.log")
        skip_unless(log["state"] == "present", log["why"])
        self.daemon.deploy_probe("asker")
        self.daemon.call("asker", b"say hi")
        described = self.daemon.api("GET", "/v1/functions/asker").json()
        self.assertEqual(described["refused_calls"], {"count": 0, "by_name": {}})
        self.assertNotIn("refused ", self.daemon.cli_ok("describe", "asker"))
        for deeds in (b"mount; unshare net", b"mount; socket 17 3 0"):
            self.assertRegex(self.daemon.call("asker", deeds).text, "errno")
        described = self.daemon.api("GET", "/v1/functions/asker").json()
        self.assertEqual(described["refused_calls"], {
            "count": 5, "by_name": {"clone": 1, "mount": 2, "socket": 1, "unshare": 1}})
        self.assertRegex(self.daemon.cli_ok("describe", "asker"),
                         r"refused +5 system calls +\(clone 1, mount 2, socket 1, unshare 1\)")
        line = "system calls refused so far: 3 (clone 1, mount 1, unshare 1)"
        self.assertIn(line, self.daemon.cli_ok("logs", "asker"))
        self.assertEqual(self.daemon.log().count("/asker: system calls refused"), 1)


class Outside(Case):
    """What the rest of the machine sees of a misbehaving function."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"timeout": "2s", "grace": "300ms", "pids": 32})

    def slots_now(self):
        return [c for c in leaks.cgroups_of(self.daemon.data) if "slot-" in c]

    def test_a_fork_bomb_is_gone_after_its_timeout(self):
        reply = self.daemon.call("probe", b"forkbomb; sleep 30")
        self.assertEqual(reply.outcome, "timed-out", repr(reply))
        wait_until(lambda: len(self.tasks()) <= 2, 60, "the bomb is gone")  # one is parked again

    def tasks(self):
        found = set()
        for folder in self.slots_now():
            try:
                with open(folder + "/cgroup.procs", encoding="ascii") as f:
                    found |= set(f.read().split())
            except OSError:
                pass
        return found

    def test_another_function_answers_while_one_hogs_the_cpu(self):
        self.daemon.put("hog", {"image": "probe:1", "mode": "exec",
                                "limits": {"cpu": "500m", "timeout": "20s"}, "scale": {"max": 4}})
        ends = []

        def burn():
            self.daemon.call("hog", b"cpu 6")
            ends.append(time.monotonic())

        hogs = [threading.Thread(target=burn) for _ in range(4)]
        for hog in hogs:
            hog.start()
        wait_until(lambda: self.daemon.open_calls("hog") == 4, 30, "four hogs")
        # Whatever else the machine does: twenty answers are there before the first hog has ended.
        for _ in range(20):
            self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")
        self.assertEqual(ends, [], "the calls waited for the hogs")
        for hog in hogs:
            hog.join()

    def test_nothing_of_one_call_is_seen_by_another_function(self):
        self.daemon.put("other", {"image": "probe:1", "mode": "exec"})
        self.daemon.call("probe", b"write /tmp/s secret; write /dev/shm/s secret")
        text = self.daemon.call("other", b"cat /tmp/s; cat /dev/shm/s; ls /tmp").text
        self.assertNotIn("secret", text)

    def test_log_floods_are_bounded(self):
        for _ in range(3):
            self.daemon.call("probe", b"stderr 20000000")
        if not SANITIZED:
            self.assertLess(leaks.memory_kib(self.daemon.daemon_pid()), 64 << 10)
        self.assertLess(sum(f.stat().st_size for f in self.daemon.data.rglob("*") if f.is_file()),
                        64 << 20)


class HostileImages(Case):
    """Images that try to redirect what the sandbox puts on top of them."""

    @classmethod
    def prepare(cls):
        cls.daemon.import_sample("probe")

    def try_to_deploy(self, name, entries, **config):
        entries = [*entries, Entry("probe", content=probe_binary(), mode=0o755)]
        image = Image([name + ":1"], [archive.layer(entries)], {"Entrypoint": ["/probe"], **config})
        self.daemon.import_archive(archive.docker_archive([image]))
        return self.daemon.api("PUT", f"/v1/functions/{name}",
                               {"image": name + ":1", "mode": "exec"})

    def deploy(self, name, entries, **config):
        reply = self.try_to_deploy(name, entries, **config)
        self.assertEqual(reply.status, 201, repr(reply))
        return lambda deeds: self.daemon.call(name, deeds.encode())

    def test_symlinks_where_mounts_go(self):
        ask = self.deploy("links", [Entry("proc", "symlink", link="/canary"),
                                    Entry("dev", "symlink", link="../../.."),
                                    Entry("tmp", "symlink", link="/etc"),
                                    Entry("etc", "dir", mode=0o777),
                                    Entry("etc/hosts", "symlink", link="/proc/sysrq-trigger")])
        reply = ask("status; ls /dev; write /tmp/f; cat /etc/hosts")
        self.assertEqual(reply.status, 200, repr(reply))
        self.assertIn("NoNewPrivs:\t1", reply.text)
        self.assertIn("null", reply.text)
        self.assertIn("write: ok", reply.text)

    def test_a_fake_proc(self):
        ask = self.deploy("fake", [Entry("proc", "dir", mode=0o755),
                                   Entry("proc/self", "dir", mode=0o755),
                                   Entry("proc/self/status", content=b"CapEff: fake\n")])
        self.assertNotIn("fake", ask("status").text)

    def test_set_uid_programs_gain_nothing(self):
        image = Image(["suid:1"], [archive.layer([
            Entry("probe", content=probe_binary(), mode=0o6755)])],
            {"Entrypoint": ["/probe"], "User": "1000:1000"})
        self.daemon.import_archive(archive.docker_archive([image]))
        self.daemon.put("suid", {"image": "suid:1", "mode": "exec"})
        text = self.daemon.call("suid", b"ids; caps").text
        self.assertIn("uid 1000 1000 1000 gid 1000 1000 1000", text)
        sets = dict(re.findall(r"^Cap(\w+):\t(\w+)$", text, re.M))
        self.assertEqual(sets, dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), "0" * 16), text)

    def test_users_by_name_and_number(self):
        passwd = b"root:x:0:0::/:\nflea:x:1234:2345::/:\n"
        group = b"root:x:0:\nflea:x:2345:\njump:x:77:flea\n"
        entries = [Entry("etc", "dir", mode=0o755), Entry("etc/passwd", content=passwd),
                   Entry("etc/group", content=group)]
        for user, expected in (("flea", "uid 1234 1234 1234 gid 2345 2345 2345 groups 77"),
                               ("flea:jump", "uid 1234 1234 1234 gid 77 77 77 groups"),
                               ("99:98", "uid 99 99 99 gid 98 98 98 groups"),
                               ("1234", "uid 1234 1234 1234 gid 2345 2345 2345"),
                               ("", "uid 0 0 0 gid 0 0 0 groups")):
            name = "user-" + (user.replace(":", "-") or "none")
            ask = self.deploy(name, entries, User=user)
            self.assertIn(expected, ask("ids").text, user)

    def test_a_user_that_is_not_there_is_a_named_failure(self):
        reply = self.try_to_deploy("nouser", [], User="ghost")
        self.assertEqual(reply.status, 400, repr(reply))
        self.assertIn("ghost", reply.text)
        self.assertEqual(self.daemon.api("GET", "/v1/functions/nouser").status, 404)

    def test_hostile_passwd_files(self):
        for name, entry in (("link", Entry("etc/passwd", "symlink", link="/dev/zero")),
                            ("fifo", Entry("etc/passwd", "fifo")),
                            ("junk", Entry("etc/passwd", content=os.urandom(1 << 20)))):
            reply = self.try_to_deploy("passwd-" + name, [Entry("etc", "dir", mode=0o755), entry],
                                       User="flea")  # which returns: /dev/zero has no end
            self.assertEqual(reply.status, 400, repr(reply))

    def test_working_directories(self):
        for folder, expected in (("/work/deep", "/work/deep"), ("rel", "/rel"), ("", "/"),
                                 ("/../../..", "/")):
            name = "wd" + str(len(folder))
            ask = self.deploy(name, [], WorkingDir=folder)
            reply = ask("cwd")
            self.assertEqual(reply.text.strip(), expected, repr(reply))

    def test_a_working_directory_that_is_a_symlink_stays_inside(self):
        dangling = self.try_to_deploy(
            "wdnowhere", [Entry("w", "symlink", link="/proc/1/root/../../..")], WorkingDir="/w")
        self.assertEqual(dangling.status, 400, repr(dangling))  # no /proc while the root is made
        ask = self.deploy("wdlink", [Entry("real", "dir", mode=0o755),
                                     Entry("w", "symlink", link="/../../../real")],
                          WorkingDir="/w")
        reply = ask("cwd; cat ../../../../etc/shadow")
        self.assertEqual(reply.text.splitlines()[0], "/real", repr(reply))
        self.assertNotIn("root:", reply.text)


if __name__ == "__main__":
    unittest.main()
