"""The outcome of a start under twistd, for the command that a user has typed.

twistd forks a daemon, and its parent waits for a report of the daemon. If the daemon exits during
its start, this report never comes, because the parent itself keeps the pipe open. So this module
has another pipe, and only the daemon has its writing end. A byte means that the daemon serves; the
end of the pipe means that it has ended.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class Launch:
    """The pipe between the command and its daemon; made before twistd forks.

    :param pid_file: the file that twistd writes, and does not remove if the start fails early; or
        empty.
    :param forks: whether twistd will fork.
    :param reactor: shows whether a start fails early or in a running reactor.
    """

    def __init__(self, reactor: Any, pid_file: str, *, forks: bool) -> None:
        self._reactor = reactor
        self._pid_file = pid_file
        self._is_child = False
        self._open: list[int] = []
        if forks:
            self._read, self._write = os.pipe()
            self._stderr = os.dup(2)
            self._open = [self._write, self._stderr]
            os.register_at_fork(after_in_parent=self._wait, after_in_child=self._begin)

    def _wait(self) -> None:
        """In the command: wait until the daemon serves, or end with it."""
        if self._is_child or not self._open:
            return
        self._close()
        if not os.read(self._read, 1):
            os._exit(1)
        os.close(self._read)

    def _begin(self) -> None:
        """In the daemon: close the reading end."""
        if not self._is_child and self._open:
            self._is_child = True
            os.close(self._read)

    def ended(self, reason: str) -> None:
        """Report the outcome of the start to the command.

        :param reason: why it failed; empty if it succeeded.
        """
        if self._open:
            with suppress(OSError):  # the command may have ended
                if reason:
                    os.write(self._stderr, f"ncps: error: {reason}\n".encode())
                else:
                    os.write(self._write, b"1")
            self._close()
        if reason and self._pid_file and not self._reactor.running:
            with suppress(OSError):
                Path(self._pid_file).unlink()

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())
