"""The daemon under `twistd` and `twist`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

from tests.e2e.daemon import Daemon
from tests.system.life import TWISTD, LifeStage
from tests.system.program import run, settings_of
from tests.waiting import wait_until


class TwistdTests(LifeStage):
    """The commands of Twisted."""

    def test_twistd(self) -> None:
        """`twistd -n ncps` serves and stops like `ncps serve`."""
        daemon = self.make_daemon(self.origin())
        command = [*TWISTD, *settings_of(daemon)]
        process = self.spawn(daemon, command)
        self.wait_until_listening(daemon)
        self.end_by_signal(process)
        self.wait_for_log(daemon, "ncps has stopped")

    def end_by_signal(self, process: subprocess.Popen[bytes]) -> None:
        """Send a signal to a process of Twisted: by design it then dies of that signal."""
        process.send_signal(signal.SIGTERM)
        self.assertIn(process.wait(20), {0, -signal.SIGTERM})

    def test_twist(self) -> None:
        """`twist ncps` serves and stops."""
        daemon = self.make_daemon(self.origin())
        process = self.spawn(daemon, ["-m", "twisted", "ncps", *settings_of(daemon)])
        self.wait_until_listening(daemon)
        self.end_by_signal(process)
        self.wait_for_log(daemon, "ncps has stopped")

    def test_twistd_tells_what_is_wrong(self) -> None:
        """A misspelt option has the same message as with `ncps serve`."""
        home = self.directory
        done = run([*TWISTD, "--cache-hostnme=x"], home)
        self.assertNotEqual(0, done.returncode)
        self.assertIn("did you mean --cache-hostname", done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_twistd_refuses_a_store_in_use(self) -> None:
        """A store of another daemon is an error under twistd, too."""
        daemon = self.daemon(self.origin())
        command = [*TWISTD, *settings_of(daemon)]
        done = run(command, daemon.directory / "home")
        self.assertEqual(1, done.returncode)
        said = done.stdout + done.stderr
        self.assertRegex(said, r"is in use by process \d+ on ")
        self.assertNotIn("Traceback", said)

    def test_twist_refuses_a_store_in_use(self) -> None:
        """A store of another daemon is an error under twist, too."""
        daemon = self.daemon(self.origin())
        done = run(["-m", "twisted", "ncps", *settings_of(daemon)], daemon.directory / "home")
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stdout + done.stderr, r"is in use by process \d+ on ")

    def daemonized(self, daemon: Daemon, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run `twistd ncps` for a daemon, until the command ends."""
        where = daemon.directory
        twistd = [*TWISTD[:2], f"--pidfile={where}/pid", f"--logfile={where}/log"]
        return run([*twistd, "ncps", *settings_of(daemon), *flags], where / "home")

    def test_a_daemon_that_serves_ends_the_command(self) -> None:
        """The command ends with 0 once the daemon serves; the daemon rotates its log and stops."""
        daemon = self.make_daemon(self.origin())
        done = self.daemonized(daemon)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        pid = int((daemon.directory / "pid").read_text())
        self.addCleanup(self.end_for_good, pid)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: (daemon.directory / "log.1").exists(), "the log to be turned")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (daemon.directory / "pid").exists(), "it to end", daemon=daemon)

    def end_for_good(self, pid: int) -> None:
        """Kill a daemon that should have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def test_a_daemon_that_cannot_start_ends_the_command(self) -> None:
        """The command ends with 1, says why in one line, and leaves no pid file."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for flags, reason in (
                (["--cache-secret-key-path=/nonexistent"], "a file under / cannot be read"),
                ([f"--server-addr=127.0.0.1:{taken.getsockname()[1]}"], "cannot listen on"),
            ):
                daemon = self.make_daemon(self.origin())
                done = self.daemonized(daemon, *flags)
                self.assertEqual(1, done.returncode)
                self.assertRegex(done.stderr, rf"^ncps: error: .*{reason}.*\n$")
                wait_until(lambda: not (daemon.directory / "pid").exists(), "it to end")  # noqa: B023

    def test_in_the_foreground_no_pid_file_is_left(self) -> None:
        """`twistd -n` writes a pid file, too."""
        daemon = self.make_daemon(self.origin())
        where = daemon.directory
        command = [*TWISTD[:2], "-n", f"--pidfile={where}/pid", "ncps", *settings_of(daemon)]
        done = run([*command, "--cache-secret-key-path=/nonexistent"], where / "home")
        self.assertEqual(1, done.returncode)
        self.assertFalse((where / "pid").exists())

    def test_port_in_use_ends_twistd(self) -> None:
        """A port in use ends twistd instead of leaving it without a port."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            daemon = self.make_daemon(self.origin())
            flags = [*settings_of(daemon), "--server-addr", f":{taken.getsockname()[1]}"]
            done = run([*TWISTD, *flags], daemon.directory / "home")
        self.assertIn("cannot listen on", done.stdout + done.stderr)
