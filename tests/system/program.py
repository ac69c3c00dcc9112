"""The program's other commands, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0  # seconds for a command

Done = subprocess.CompletedProcess[str]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return what a command sees of its surroundings: a home, a path and the project."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def run(command: Sequence[str], home: Path, more: Mapping[str, str] | None = None) -> Done:
    """Run `python ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, *command],
        env=environment(home, **(more or {})),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def settings_of(daemon: Daemon) -> list[str]:
    """Return the flags that a daemon is started with."""
    command = daemon.command()
    return command[command.index("serve") + 1 :]


def run_ncps(daemon: Daemon, *command: str, flags: Sequence[str] = ()) -> Done:
    """Run a command with a daemon's settings and further flags, which count if repeated."""
    arguments = [*command, *settings_of(daemon), *flags]
    return run(["-m", "ncps", *arguments], daemon.directory / "home")
