"""The console command `dbmate-ncps`, for modules and scripts written for the Go program.

The `services.ncps` of nixpkgs runs `dbmate-ncps up` before each start, with the database in
`DATABASE_URL`. `ncps migrate up` does the work here. Nothing else needs this command: `ncps serve`
brings the schema up to date by itself.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from attrs import evolve, frozen

import ncps
from ncps.aio.imports import named
from ncps.cli import COMMANDS, USAGE_ERROR, Commands, run
from ncps.errors import Unavailable
from ncps.settings.kinds.database_url import DATABASE_URL
from ncps.settings.kinds.values import parse_duration
from ncps.settings.schema.tree import Settings
from ncps.settings.showing import quote
from ncps.settings.surroundings import Surroundings

PAUSE_S: Final = 1.0
"""Time between two attempts at a database that does not answer yet."""
_WAIT_S: Final = 60.0
_OURS: Final = "CACHE_DATABASE_URL"
_REPLACED: Final = (_OURS, f"{_OURS}_FILE")

_COMMANDS: Final = {"up": "up", "migrate": "up", "status": "status", "wait": "status"}
"""Commands of dbmate, and the steps of `ncps migrate` that replace them."""

_WITHOUT_EFFECT: Final = ("-v", "--verbose", "--strict", "--no-dump-schema", "--quiet")
_WITHOUT_EFFECT_WITH_VALUE: Final = (
    *("-d", "--migrations-dir"),
    "--migrations-table",
    *("-s", "--schema-file"),
    "--driver",
)
"""Flags of dbmate for its own files and its own output."""

_ELSEWHERE: Final = {
    "new": "the migrations are part of the program",
    "create": "make the database as its administrator; a file of SQLite is made by `up`",
    "drop": "stop ncps and remove the database as its administrator",
    "rollback": "migrations only go forward",
    "down": "migrations only go forward",
    "dump": "the schema is part of the program",
    "load": "`up` makes the whole schema",
}
"""Commands of dbmate that ncps does not have, and why, or what to do instead."""


class _UsageError(Exception):
    """The command line or the environment is wrong."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises errors instead of printing the usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _seconds(text: str) -> float:
    """Read a time as Go writes it, such as 30s or 1m."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} {error}") from None


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; flags may stand before and after the command."""
    parser = _Parser(
        prog="dbmate-ncps",
        usage="dbmate-ncps [--url URL] up|migrate|status|wait",
        description="Bring the database of ncps up to date, where a program expects dbmate."
        " up and migrate apply the migrations that are pending, status says which are applied,"
        " wait waits until the database answers.",
        epilog="Without --url, the database is that of DATABASE_URL, or else of CACHE_DATABASE_URL."
        " Flags about files of migrations are accepted and have no effect. `ncps migrate up` does"
        " the same, and `ncps serve` does it by itself.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", nargs="?", help=argparse.SUPPRESS)
    add("rest", nargs="*", help=argparse.SUPPRESS)
    add("--version", action="version", version=f"dbmate-ncps {ncps.__version__}")
    add("-u", "--url", help="URL of the database, instead of the variable")
    add("-e", "--env", metavar="NAME", help="variable with the URL [default: DATABASE_URL]")
    add("--env-file", metavar="FILE", help="not supported: set the variable")
    add("--wait", action="store_true", help="wait until the database answers")
    add(
        "--wait-timeout",
        type=_seconds,
        default=_WAIT_S,
        metavar="TIME",
        help="for --wait [default: 60s]",
    )
    add("--exit-code", action="store_true", help="status: exit with 1 if a migration is pending")
    add(*_WITHOUT_EFFECT, action="store_true", dest="unused", help=argparse.SUPPRESS)
    add(*_WITHOUT_EFFECT_WITH_VALUE, dest="unused", help=argparse.SUPPRESS)
    return parser


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. Raises _UsageError, and SystemExit for --help and --version."""
    options, left = build_parser().parse_known_args(arguments)
    if left:  # the word after such a flag may be its value
        raise _UsageError(f"unknown flag {left[0].partition('=')[0]}")
    command = options.command
    if command is None:
        raise _UsageError("which command? up, migrate, status or wait (--help lists all)")
    if command in _ELSEWHERE:
        raise _UsageError(f"no command {command}: {_ELSEWHERE[command]}")
    if command not in _COMMANDS:
        close = difflib.get_close_matches(command[:32], _COMMANDS, n=1)
        hint = f": did you mean {close[0]}?" if close else ": up, migrate, status or wait?"
        raise _UsageError(f"unknown command {quote(command)}{hint}")
    if options.rest:
        raise _UsageError(f"unexpected argument {quote(options.rest[0])}")
    if options.env_file:
        raise _UsageError("--env-file is not supported: set DATABASE_URL, or give --url")
    return options


def _surroundings(options: argparse.Namespace) -> Surroundings:
    """Return this process's surroundings with the database in the variable of ncps.

    Raises _UsageError if no database is named, or if its URL is wrong.
    """
    around = Surroundings.of_process()
    name = options.env or "DATABASE_URL"
    url, where = options.url, "--url"
    if not url:
        url, where = around.environ.get(name), f"environment {name}"
    if not url:
        if options.env or not any(map(around.environ.get, _REPLACED)):
            raise _UsageError(f"no database: set {name}, or give --url")
        return around
    try:
        DATABASE_URL.parse(url)
    except ValueError as error:
        raise _UsageError(f"{where}: {error}") from None
    others = {key: text for key, text in around.environ.items() if key not in _REPLACED}
    return evolve(around, environ={**others, _OURS: url})


def _pending(settings: Settings) -> int:
    """Return the number of pending migrations. Raises the errors of `migrate.status`."""
    engine = named("ncps.assembly.databases:dialect")(settings)
    return len(named("ncps.database.migrate:status")(engine).pending)


@frozen
class Clock:
    """The time, which a test replaces.

    :param now: seconds since some moment.
    :param sleep: blocks for a number of seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def _wait(settings: Settings, timeout_s: float, clock: Clock) -> None:
    """Ask the database once a second until it answers. Raises Unavailable after `timeout_s`.

    If the database hangs, one attempt takes several seconds.
    """
    deadline = clock.now() + timeout_s
    while True:
        try:
            _pending(settings)
        except Unavailable:
            if clock.now() + PAUSE_S > deadline:
                raise
            clock.sleep(PAUSE_S)
        else:
            return


def _commands(options: argparse.Namespace, real: Commands, clock: Clock) -> Commands:
    """Return the commands of ncps, changed as the options of dbmate say."""

    def up(settings: Settings, dry_run: bool) -> int:
        if options.wait:
            _wait(settings, options.wait_timeout, clock)
        return real.migrate_up(settings, dry_run)

    def status(settings: Settings) -> int:
        if options.wait or options.command == "wait":
            _wait(settings, options.wait_timeout, clock)
        if options.command == "wait":
            return 0
        code = real.migrate_status(settings)
        return int(_pending(settings) > 0) if options.exit_code and code == 0 else code

    return evolve(real, migrate_up=up, migrate_status=status)


def dbmate(
    arguments: Sequence[str],
    *,
    commands: Commands = COMMANDS,
    clock: Clock = Clock(),
) -> int:
    """Run the command of the arguments and return the exit code.

    :param commands: replaces the real commands of ncps.
    :param clock: times the waits.
    """
    try:
        options = _read(arguments)
        around = _surroundings(options)
    except _UsageError as error:
        sys.stderr.write(f"dbmate-ncps: error: {error}\n")
        return USAGE_ERROR
    except SystemExit as done:
        return int(done.code or 0)
    step = _COMMANDS[options.command]
    return run(["migrate", step], commands=_commands(options, commands, clock), surroundings=around)


def main() -> int:
    """Run with the arguments of this process."""
    return dbmate(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
