"""Runs other commands of the program as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from tests import authorities
from tests.e2e.daemon import Daemon
from tests.e2e.forked import Forked

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0  # seconds for a command

_PROGRAMS = {"ncps": "ncps.__main__", "ncps.dbmate": "ncps.dbmate"}

_SECRETS = {
    f"--{name}": name.upper().replace("-", "_")
    for name in (
        "cache-database-url",
        "cache-storage-s3-access-key-id",
        "cache-storage-s3-secret-access-key",
        "cluster-secret",
    )
}
"""Flags whose values a command warns of, and the variables that carry these values."""

Done = subprocess.CompletedProcess[str]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command: a home, a path and the project."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        authorities.VARIABLE: authorities.FILE,
        **more,
    }


def run(command: Sequence[str], home: Path, more: Mapping[str, str] | None = None) -> Done:
    """Run `python ARGUMENTS` to its end; programs of ours run in a fork of the warm process."""
    seen = environment(home, **(more or {}))
    if command[0] == "-m" and (program := _PROGRAMS.get(command[1])):
        return run_forked(program, command[2:], home, seen)
    return subprocess.run(
        [sys.executable, *command],
        env=seen,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def run_forked(program: str, arguments: Sequence[str], home: Path, seen: Mapping[str, str]) -> Done:
    """Run a program of ours to its end, in a fork of the warm process.

    :param program: module with a function `main`.
    :param home: its working directory.
    :param seen: its whole environment.
    """
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        outputs = (output.fileno(), errors.fileno())
        forked = Forked(arguments, seen, home, *outputs, program=program, is_command=True)
        try:
            code = forked.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(forked.pid, signal.SIGKILL)
            raise
        output.seek(0)
        errors.seek(0)
        return Done(arguments, code, output.read(), errors.read())


def settings_of(daemon: Daemon) -> list[str]:
    """Return the flags of a daemon."""
    command = daemon.command()
    return command[command.index("serve") + 1 :]


def run_ncps(
    daemon: Daemon,
    *command: str,
    flags: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Run a command with a daemon's settings; secrets are in variables.

    :param flags: further flags, which count if repeated; `--flag=value` stays as it is.
    :param variables: further variables, in the same way.
    """
    given, secrets = [*settings_of(daemon), *flags], {}
    for flag, variable in _SECRETS.items():
        while flag in given:
            at = given.index(flag)
            _, secrets[variable] = given[at : at + 2]
            del given[at : at + 2]
    arguments = [*command, *given]
    home = daemon.directory / "home"
    return run(["-m", "ncps", *arguments], home, {**secrets, **(variables or {})})
