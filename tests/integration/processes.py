"""Other processes, for tests with several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

import ncps
from tests.e2e.forked import Forked

ROOT = Path(ncps.__file__).absolute().parent.parent
DEADLINE_S = 60.0


class Script:
    """Python text in a process of its own, which has already imported the program.

    :ivar stdin: its input, as a pipe; its output is in `stdout`.
    """

    def __init__(self, text: str, *arguments: str) -> None:
        theirs, ours = os.pipe()
        self.stdin = os.fdopen(ours, "w")
        ours, output = os.pipe()
        self.stdout = os.fdopen(ours)
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - closed with the pipes
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        try:
            self._process = Forked(
                *([text, *arguments], environment, ROOT, output, self._errors.fileno()),
                program="tests.machines.script",
                input_fd=theirs,
                is_command=True,
            )
        finally:
            os.close(theirs)
            os.close(output)
        self.pid = self._process.pid

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._process.send_signal(signal.SIGKILL)

    def communicate(self, text: str = "") -> tuple[str, str, int]:
        """Write its last input; return the rest of its output, its errors and its exit code."""
        if not self.stdin.closed:
            try:
                self.stdin.write(text)
                self.stdin.close()
            except BrokenPipeError:  # it has ended
                pass
        try:
            code = self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if self.stdout.closed:
            return "", "", code
        with self.stdout, self._errors:
            output = self.stdout.read()
            self._errors.seek(0)
            return output, self._errors.read(), code


def spawn(script: str, *arguments: str) -> Script:
    """Run Python text in a process of its own, with pipes for its input and output."""
    return Script(script, *arguments)


def child(script: str) -> subprocess.Popen[str]:
    """Run Python text in a new process, which has imported nothing."""
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, text=True)


def finish(process: Script, text: str = "") -> str:
    """Write a process's input and return its output; its exit code must be 0."""
    output, errors, code = process.communicate(text)
    if code:
        raise AssertionError(f"exit code {code}: {errors}")
    return output


def die(process: Script) -> str:
    """Wait for a process that kills itself; return its output."""
    output, errors, code = process.communicate()
    if code != -9:
        raise AssertionError(f"exit code {code}: {errors}")
    return output


def together(script: str, arguments: list[str], count: int) -> list[str]:
    """Run processes that wait at `sys.stdin.readline()` together; return their outputs."""
    processes = [spawn(script, *arguments, str(number)) for number in range(count)]
    for process in processes:
        ready = process.stdout.readline()
        if ready != "ready\n":
            raise AssertionError(f"not ready: {ready!r} {process.communicate()}")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [finish(process) for process in processes]
