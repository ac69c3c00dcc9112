"""Daemons that a test starts by its own commands."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.e2e.daemon import Daemon
from tests.system.program import environment
from tests.system.stage import Stage
from tests.waiting import wait_until

GET_INDEX = b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#: The message about an address in use: one line with the address.
TAKEN = (
    r"\Ancps: error: cannot listen on 127\.0\.0\.1:{port}: Address already in use; stop[^\n]*\n\Z"
)
TWISTD = (
    *("-c", "from twisted.scripts.twistd import run; run()"),
    *("-n", "--pidfile=", "ncps"),
)
PASS_SOCKETS = """
import json, os, socket, sys
fds = json.loads(sys.argv[1])
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
    os.set_inheritable(3 + number, True)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class LifeStage(Stage):
    """Processes that the test starts by its own commands."""

    def spawn(
        self,
        daemon: Daemon,
        command: Sequence[str],
        *,
        more: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `python COMMAND` with its output in the daemon's log."""
        with (daemon.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(daemon.directory / "home", **(more or {})),
                cwd=daemon.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=fds,
            )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        return process

    def wait_until_listening(self, daemon: Daemon) -> None:
        """Wait until the daemon's port answers."""
        wait_until(lambda: self.answers(daemon), "the daemon to answer", daemon=daemon)

    def answers(self, daemon: Daemon) -> bool:
        """Return whether the daemon serves."""
        with contextlib.suppress(OSError):
            return self.ask(daemon, "/readyz").status == 200
        return False

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
        """Send a signal to a process, and check that it ends with exit code 0."""
        process.send_signal(number)
        self.assertEqual(0, process.wait(20))
