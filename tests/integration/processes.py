"""Other processes, for tests of what must hold between several of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ncps

ROOT = Path(ncps.__file__).absolute().parent.parent


def spawn(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run Python text in a process of its own; its output is piped, its input too."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str], text: str = "") -> str:
    """Give a process its input and return its output; it must end well."""
    output, errors = process.communicate(text, timeout=60)
    if process.returncode:
        raise AssertionError(f"exit code {process.returncode}: {errors}")
    return output


def die(process: subprocess.Popen[str]) -> str:
    """Wait for a process that kills itself; return what it had said."""
    output, errors = process.communicate(timeout=60)
    if process.returncode != -9:
        raise AssertionError(f"exit code {process.returncode}: {errors}")
    return output


def together(script: str, arguments: list[str], count: int) -> list[str]:
    """Run so many processes that go on past `sys.stdin.readline()` at one time; their outputs."""
    processes = [spawn(script, *arguments, str(number)) for number in range(count)]
    for process in processes:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if ready != "ready\n":
            raise AssertionError(f"not ready: {ready!r} {process.communicate()}")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [finish(process) for process in processes]
