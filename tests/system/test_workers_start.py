"""The start of several processes, and their addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess

from tests.e2e.daemon import Daemon
from tests.system.crew import (
    WorkersStage,
    children,
)
from tests.system.life import GET_INDEX, PASS_SOCKETS, TAKEN
from tests.system.program import run, run_ncps, settings_of
from tests.system.stage import log_lines
from tests.system.wire import raw_status, send_raw

SABOTAGE = """
import json, os, sys
put = os.putenv
def putenv(name, value):
    if name == b"NCPS_WORKER" and json.loads(value)["number"] == 2:
        os._exit(7)
    put(name, value)
os.putenv = putenv
from ncps.__main__ import main
sys.exit(main())
"""
"""Runs ncps; its second worker ends when it gets its place."""


class StartTests(WorkersStage):
    """Starts that succeed or fail."""

    def test_port_in_use_is_told(self) -> None:
        """A port in use is the same error as before, also if the other program shares it."""
        for share in (False, True):
            with socket.socket() as taken:
                if share:
                    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                port = taken.getsockname()[1]
                daemon = self.make_daemon(self.origin())
                flags = ["--workers", "2", "--server-addr", f"127.0.0.1:{port}"]
                done = run_ncps(daemon, "serve", flags=flags)
            self.assertEqual(1, done.returncode, done.stdout)
            self.assertRegex(done.stderr, TAKEN.format(port=port))
            self.assertNotIn('"fatal"', done.stdout)
            self.assertNotIn("has stopped", done.stdout)

    def test_a_worker_that_cannot_start_is_told(self) -> None:
        """A worker that dies at the start ends the daemon with exit code 1, and is named."""
        daemon = self.make_daemon(self.origin())
        flags = ["serve", "--workers", "3", *settings_of(daemon)]
        done = run(["-c", SABOTAGE, *flags], daemon.directory / "home")
        self.assertEqual(1, done.returncode, done.stdout)
        said = done.stdout + done.stderr
        self.assertIn("worker 2 ended before it could serve, with exit code 7", said)
        self.assertNotIn("Traceback", said)

    def test_a_worker_says_why_it_cannot_start(self) -> None:
        """An error that only a worker finds is one line of the supervisor, as in one process."""
        daemon = self.daemon(self.origin())
        daemon.stop()
        (daemon.storage / "config" / "cache.key").unlink()
        done = run_ncps(daemon, "serve", flags=["--workers", "2"])
        self.assertEqual(1, done.returncode, done.stdout)
        self.assertRegex(done.stderr, r"\Ancps: error: the store keeps no signing key [^\n]+\n\Z")
        self.assertNotIn('"fatal"', done.stdout)

    def test_usual_errors_are_as_usual(self) -> None:
        """The supervisor reports an error in the settings or the storage once."""
        file = self.directory / "file"
        file.write_text("not a directory")
        daemon = self.make_daemon(self.origin())
        done = run_ncps(
            daemon, "serve", flags=["--workers", "2", "--cache-storage-local", str(file)]
        )
        self.assertEqual(1, done.returncode)
        self.assertEqual(1, done.stderr.count("error: "), done.stderr)
        done = run_ncps(daemon, "serve", flags=["--workers", "0"])
        self.assertEqual(2, done.returncode)
        self.assertIn("--workers", done.stderr)

    def test_twistd_has_one_process(self) -> None:
        """Under twistd several workers are an error that names `ncps serve`."""
        command = ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]
        done = run([*command, "ncps", "--workers", "2"], self.directory)
        self.assertNotEqual(0, done.returncode)
        self.assertIn("ncps serve", done.stdout + done.stderr)


class AddressTests(WorkersStage):
    """The addresses of the workers."""

    def replaced(self, daemon: Daemon, process: subprocess.Popen[bytes]) -> None:
        """End one worker in order, and wait until another one serves."""
        workers = children(process.pid)
        os.kill(workers[0], signal.SIGTERM)
        self.wait_for_log(daemon, "ended with exit code 0", "takes its place")
        self.wait_for_starts(daemon, 3)

    def test_a_unix_socket_outlives_a_worker(self) -> None:
        """A worker that ends does not remove the socket of all; the supervisor does."""
        path = self.directory / "web.sock"
        daemon = self.make_daemon(self.origin())
        flags = settings_of(daemon)
        flags[flags.index("--server-addr") + 1] = f"unix:{path}:mode=640"
        command = ["-m", "ncps", "serve", *flags, "--workers", "2"]
        process = self.spawn(daemon, command)
        self.wait_until_all_serve(daemon)
        self.replaced(daemon, process)
        self.assertEqual(0o640, path.stat().st_mode & 0o777)
        for _ in range(10):
            self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
        self.end(process)
        self.assertFalse(path.exists())

    def test_sockets_of_systemd_outlive_a_worker(self) -> None:
        """All workers serve sockets of systemd, and a worker that ends does not close them."""
        daemon = self.make_daemon(self.origin())
        path = self.directory / "passed.sock"
        with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
            unix.bind(str(path))
            path.chmod(0o600)
            unix.listen()
            flags = settings_of(daemon)
            at = flags.index("--server-addr")
            flags[at + 1] = "systemd:domain=INET:index=0"
            flags += ["--server-addr", "systemd:domain=UNIX:name=unix", "--workers", "2"]
            fds = [tcp.fileno(), unix.fileno()]
            command = ["-c", PASS_SOCKETS, json.dumps(fds), "web:unix", "-m", "ncps", "serve"]
            process = self.spawn(daemon, [*command, *flags], fds=fds)
            self.wait_until_all_serve(daemon)
            daemon.port = tcp.getsockname()[1]
            self.replaced(daemon, process)
            for _ in range(10):
                self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
                self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
            self.end(process)
            self.assertEqual(0o600, path.stat().st_mode & 0o777)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # systemd could start it again

    def test_any_port_is_the_same_for_all(self) -> None:
        """Port 0 becomes the same number for all workers."""
        daemon = self.make_daemon(self.origin())
        flags = settings_of(daemon)
        flags[flags.index("--server-addr") + 1] = "127.0.0.1:0"
        process = self.spawn(daemon, ["-m", "ncps", "serve", *flags, "--workers", "3"])
        self.wait_until_all_serve(daemon)
        (where,) = {line["addresses"] for line in log_lines(daemon) if "addresses" in line}
        daemon.port = int(where.rpartition(":")[2])
        self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        self.end(process)
