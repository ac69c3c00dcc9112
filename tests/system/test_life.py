"""The end of the daemon, its log and its keys."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from ncps.database.migration import known
from tests.e2e.daemon import Daemon
from tests.system.caches import TestKey
from tests.system.faults import Fault, Request, Silence, Stall, Status
from tests.system.life import TWISTD, LifeStage
from tests.system.program import environment, run_ncps, settings_of
from tests.system.stage import log_lines
from tests.system.wire import Exchange, raw_status, send_raw
from tests.waiting import wait_until

SIZE = 2_000_000
MIDDLE = 1_000_000
LONG = [f"/{number:03}{'x' * 200}" for number in range(250)]
"""Paths whose lines in the log are more than a pipe can hold."""


class StopTests(LifeStage):
    """SIGTERM."""

    def arriving(self, drain: str) -> tuple[Daemon, Exchange, bytes, object]:
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(MIDDLE))
        options = ["--cache-upstream-idle-timeout", "60s", "--server-drain-timeout", drain]
        daemon = self.daemon(origin, options=options)
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        self.release = origin.release
        return daemon, reader, path.file, origin

    def test_stopped_while_it_starts(self) -> None:
        """A signal at any time of the start ends it without an error."""
        seen = set()
        for wait in range(14):
            daemon = self.make_daemon(self.origin())
            daemon.is_forked = wait % 3 > 0  # a process of its own imports more meanwhile
            started = daemon.launch()
            last = known("sqlite")[-1].version
            wait_until(lambda: f"applied migration {last} " in daemon.log, "it to begin")  # noqa: B023
            time.sleep(wait / 1000)
            started.send_signal(signal.SIGTERM)
            # Before the reactor runs, the signal itself ends the process.
            self.assertIn(started.wait(30), {0, -signal.SIGTERM})
            seen.add("serves" in daemon.log)
            for line in log_lines(daemon):
                self.assertEqual("info", line["level"], line)
        self.assertIn(False, seen)

    def test_two_signals_to_end(self) -> None:
        """A second signal cuts running answers, without a traceback, for each way to start."""
        path = self.cache.add(SIZE)
        for command in (["-m", "ncps", "serve"], list(TWISTD), ["-m", "twisted", "ncps"]):
            origin = self.mounted(Stall(MIDDLE))
            options = ["--cache-upstream-idle-timeout", "60s", "--server-drain-timeout", "60s"]
            daemon = self.make_daemon(origin, options=options)
            process = self.spawn(daemon, [*command, *settings_of(daemon)])
            self.wait_until_listening(daemon)
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                process.send_signal(number)
            self.wait_for_log(daemon, "reloaded: nothing has changed")
            reader = self.exchange(daemon, self.nar_target(daemon, path))
            origin.wait_for_stall(path.nar_target)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not self.answers(daemon), "it to stop", daemon=daemon)  # noqa: B023
            self.assertIsNone(process.poll())
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            self.assertIn(process.wait(20), {0, -signal.SIGTERM})
            self.assertLess(time.monotonic() - began, 8)
            self.assertFalse(reader.finish().whole)
            self.assertIn("a second signal cuts them", daemon.log)
            self.assertIn("ncps has stopped", daemon.log)
            self.assertNotIn("Traceback", daemon.log)

    def test_not_ready_comes_first(self) -> None:
        """During the delay requests are served, and `/readyz` is 503; a second signal ends it."""
        daemon = self.daemon(self.origin(), options=["--server-drain-delay", "60s"])
        os.kill(daemon.pid, signal.SIGTERM)
        wait_until(lambda: self.ask(daemon, "/readyz").status == 503, "it to say no")
        self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        began = time.monotonic()
        daemon.stop()
        self.assertLess(time.monotonic() - began, 8)

    def test_slow_download_is_cut_at_the_deadline(self) -> None:
        """A download that is not complete at the drain deadline is cut, with exit code 0."""
        daemon, reader, file, _ = self.arriving("1s")
        began = time.monotonic()
        daemon.stop()
        took = time.monotonic() - began
        self.assertGreater(took, 0.9)
        self.assertLess(took, 10)
        answer = reader.finish()
        self.assertFalse(answer.whole)
        self.assertTrue(file.startswith(answer.body))
        self.assertEqual([], list((daemon.directory / "tmp").iterdir()))
        self.assertEqual([], daemon.stored_nars())

    def test_running_download_is_let_finish(self) -> None:
        """A download that ends before the deadline reaches its client complete and is stored."""
        daemon, reader, file, _ = self.arriving("20s")
        stopped = self.in_background(daemon.stop)
        wait_until(lambda: not self.is_listening(daemon), "the port to close", daemon=daemon)
        self.release()
        answer = reader.finish()
        self.assertEqual((True, file), (answer.whole, answer.body))
        stopped.result(20)
        self.assertEqual(1, len(daemon.stored_nars()))

    def is_listening(self, daemon: Daemon) -> bool:
        """Return whether the daemon accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", daemon.port), 5).close()
        except ConnectionRefusedError:
            return False
        return True

    def test_idle_connections_do_not_hold_it_up(self) -> None:
        """Kept-alive connections without a request are closed immediately."""
        daemon = self.daemon(self.origin(), options=["--server-drain-timeout", "60s"])
        with socket.create_connection(("127.0.0.1", daemon.port), 20) as line:
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(200, raw_status(line.recv(65536)))
            began = time.monotonic()
            daemon.stop()
            self.assertLess(time.monotonic() - began, 10)
            self.assertEqual(b"", line.recv(1))
        self.wait_for_log(daemon, "ncps has stopped")

    def test_stop_while_an_upstream_is_silent(self) -> None:
        """A request that waits for a silent upstream ends at the drain deadline."""
        path = self.cache.add()
        origin = self.mounted()
        origin.serve(f"/{path.digest}.narinfo", b"", plan=lambda _: [Silence()])
        options = [
            *("--cache-upstream-response-header-timeout", "60s"),
            *("--server-drain-timeout", "500ms"),
        ]
        daemon = self.daemon(origin, options=options)
        asking = self.in_background(lambda: self.raw_narinfo(daemon, path.digest))
        origin.wait_for(lambda: origin.gets(f"/{path.digest}.narinfo"))
        daemon.stop()
        self.assertEqual(b"", asking.result(20))

    def raw_narinfo(self, daemon: Daemon, digest: str) -> bytes:
        """Ask for a narinfo and return all received bytes."""
        data = f"GET /{digest}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return send_raw(("127.0.0.1", daemon.port), data)

    def test_interrupt_is_a_stop_too(self) -> None:
        """Ctrl-C ends it in order, too."""
        daemon = self.make_daemon(self.origin())
        process = self.spawn(daemon, ["-m", "ncps", "serve", *settings_of(daemon)])
        self.wait_until_listening(daemon)
        self.end(process, signal.SIGINT)
        self.wait_for_log(daemon, "ncps has stopped")


class LogTests(LifeStage):
    """The log goes to its destination."""

    def test_a_pipe_without_a_reader(self) -> None:
        """A full pipe delays neither answers nor the end, and no line is lost."""
        daemon = self.make_daemon(self.origin())
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ncps", "serve", *settings_of(daemon)],
                env=environment(daemon.directory / "home"),
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=subprocess.DEVNULL,
            )
            os.close(write_fd)
            self.addCleanup(process.wait, 10)
            self.addCleanup(process.kill)
            self.wait_until_listening(daemon)
            for path in LONG:
                self.assertEqual(404, self.ask(daemon, path).status)
            reading = self.in_background(log.read)
            metrics = self.ask(daemon, "/metrics").body
            self.assertIn(b"ncps_log_lines_dropped_total 0.0", metrics)
            self.end(process)
            lines = reading.result(20).splitlines()
        paths = [json.loads(line).get("path", "") for line in lines]
        self.assertEqual(LONG, [path for path in paths if path.endswith("xxx")])

    def test_the_end_waits_for_no_reader(self) -> None:
        """SIGTERM ends a daemon whose log no process reads, with exit code 0."""
        daemon = self.make_daemon(self.origin())
        read_fd, write_fd = os.pipe()
        self.addCleanup(os.close, read_fd)
        command = ["-m", "ncps", "serve", *settings_of(daemon)]
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment(daemon.directory / "home"),
            stdin=subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
        )
        os.close(write_fd)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        self.wait_until_listening(daemon)
        for path in LONG:
            self.ask(daemon, path)
        began = time.monotonic()
        self.end(process)
        self.assertLess(time.monotonic() - began, 10)


class KeyTests(LifeStage):
    """The signing key, and names and passwords for upstreams."""

    def test_imported_key_signs(self) -> None:
        """A key file in Nix's format becomes the signing key."""
        key = TestKey.of("imported.test-7")
        file = self.directory / "secret"
        secret = bytes(key.key) + bytes(key.key.verify_key)
        file.write_text(f"{key.name}:{base64.b64encode(secret).decode()}\n")
        path = self.cache.add()
        daemon = self.daemon(self.mounted(), options=["--cache-secret-key-path", str(file)])
        self.assertEqual(key.public, daemon.public_key())
        text = self.narinfo(daemon, path).body.decode()
        self.assertIn(f"Sig: {key.sign(path.fingerprint)}\n", text)

    def test_bad_key_file_is_told_without_its_content(self) -> None:
        """A wrong key file is an error at the start that does not show the content."""
        file = self.directory / "secret"
        file.write_text("oops:c2VjcmV0LXNlY3JldA==\n")
        daemon = self.make_daemon(self.origin())
        for name in (str(file), str(self.directory / "missing")):
            done = run_ncps(daemon, "serve", flags=["--cache-secret-key-path", name])
            self.assertIn(done.returncode, {1, 2})
            self.assertIn(name if name == str(file) else f"under {self.directory}", done.stderr)
            self.assertNotIn("c2VjcmV0", done.stdout + done.stderr)
            self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_upstream_with_a_password(self) -> None:
        """Names and passwords of the netrc file go to their upstream, and to no other."""
        path = self.cache.add(SIZE)

        def guard(request: Request) -> Sequence[Fault]:
            wanted = "Basic YWxpY2U6c2VzYW1l"
            return [] if request.headers.get("authorization") == wanted else [Status(401)]

        guarded, other = self.mounted(), self.origin()
        guarded.plan = guard
        netrc = self.directory / "netrc"
        netrc.write_text("machine 127.0.0.1 login alice password sesame\n")
        other_url = other.url.replace("127.0.0.1", "localhost")
        daemon = self.daemon(other_url, guarded, options=["--netrc-file", str(netrc)])
        self.assert_served(daemon, path)
        self.assertTrue(other.log)
        for visit in other.log:
            self.assertNotIn("authorization", visit.request.headers)
        self.assertNotIn("sesame", daemon.log)

    def test_netrc_file_that_is_missing(self) -> None:
        """A missing netrc file is reported, and the daemon continues."""
        missing = self.directory / "missing"
        daemon = self.daemon(self.mounted(), options=["--netrc-file", str(missing)])
        self.wait_for_log(daemon, f"netrc-file: {missing} does not exist", "flag --netrc-file")

    def test_wrong_password_leaves_other_upstreams_alone(self) -> None:
        """If an upstream refuses the password, other upstreams still answer."""
        path = self.cache.add()
        refusing, good = self.mounted(), self.mounted()
        refusing.plan = lambda _: [Status(401)]
        daemon = self.daemon(refusing, good)
        self.assertEqual(200, self.narinfo(daemon, path).status)
