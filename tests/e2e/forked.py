"""Daemons that are forks of a warm process; see `tests.machines.warm`.

Loading the program takes a second of a processor, more than most tests need for all else.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

POLL_S = 0.01


class Warm:
    """The warm process of this process; it ends with this process."""

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.machines.warm", str(there.fileno())],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self._door = here
        self._lock = Lock()
        atexit.register(self.close)

    def close(self) -> None:
        """End it; daemons continue."""
        self._door.close()
        self._process.wait(10)

    def ask(self, wanted: Mapping[str, Any], *descriptors: int) -> int | None:
        """Return the answer to a packet. Raises AssertionError if the warm process is gone."""
        packet = json.dumps(wanted).encode()
        with self._lock:
            socket.send_fds(self._door, [packet], descriptors)
            answer = self._door.recv(1000)
        if not answer:
            raise AssertionError(f"the warm process ended: {self._process.wait(10)}")
        found: int | None = json.loads(answer)
        return found


_making = Lock()


def _warm() -> Warm:
    with _making:  # several threads may be the first
        return _made()


@cache
def _made() -> Warm:
    return Warm()


class Forked:
    """A daemon or a command with the methods of `subprocess.Popen`.

    :param arguments: of the program.
    :param outputs: descriptors of the files for both outputs, or of one; they stay open here.
    :param input_fd: descriptor that it reads from; it stays open here.
    :param is_command: whether it ends by itself.
    :param constants: values that differ from the program's, by name of module and variable.
    :param program: module with its function `main`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        *outputs: int,
        constants: Mapping[str, float] | None = None,
        program: str = "ncps.__main__",
        input_fd: int | None = None,
        is_command: bool = False,
    ) -> None:
        wanted = {
            "program": program,
            "arguments": [*arguments],
            "environment": {**environment},
            "directory": os.fspath(directory),
            "constants": {**(constants or {})},
            "has_input": input_fd is not None,
            "is_command": is_command,
        }
        inputs = () if input_fd is None else (input_fd,)
        pid = _warm().ask(wanted, *inputs, *outputs)
        assert pid is not None
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = _warm().ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code. Raises TimeoutExpired if the program runs for longer."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("ncps", timeout)
            time.sleep(POLL_S)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)
