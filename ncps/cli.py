"""The console command: it runs the command that its arguments name.

Every setting is a flag, before or after the command. Errors are lines `ncps: error: ...` on
standard error. The exit code is 2 for errors in the command line or the configuration, and 1 for a
command that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from attrs import frozen

from ncps.aio.imports import named
from ncps.commandline.parser import (
    UnknownWord,
    WrongWords,
    build_parser,
    describe_unknown,
    describe_word,
    spell_out,
)
from ncps.errors import NcpsError
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.report import as_json, effective
from ncps.settings.schema.tree import Settings
from ncps.settings.surroundings import Surroundings

USAGE_ERROR = 2
WORKER = "NCPS_WORKER"
"""The variable by which a process learns that it is one of several workers; see `worker`."""


@frozen(kw_only=True)
class Commands:
    """The commands that work with the settings; each returns an exit code."""

    serve: Callable[[Settings], int]
    serve_with_workers: Callable[[Settings], int]
    migrate_up: Callable[[Settings, bool], int]
    migrate_status: Callable[[Settings], int]
    rebuild: Callable[[Settings], int]
    keys: Callable[[Settings, argparse.Namespace], int]


def _later(name: str) -> Callable[..., int]:
    """Return a function that imports the one of this name when it is called, and calls it.

    `--help` and `settings` need neither reactor nor database drivers.
    """

    def call(*arguments: object) -> int:
        return int(named(name)(*arguments))

    return call


COMMANDS = Commands(
    serve=_later("ncps.assembly.service:serve"),
    serve_with_workers=_later("ncps.process.crew:serve"),
    migrate_up=_later("ncps.commands:migrate_up"),
    migrate_status=_later("ncps.commands:migrate_status"),
    rebuild=_later("ncps.commands:rebuild"),
    keys=_later("ncps.commandline.keys:command"),
)


_work = _later("ncps.process.worker:work")


def _complain(problems: Sequence[str], kind: str = "error") -> None:
    for problem in problems:
        sys.stderr.write(f"ncps: {kind}: {problem}\n")


def _print_settings(settings: Settings, *, is_json: bool) -> int:
    _complain(settings.warnings, "warning")
    if is_json:
        sys.stdout.write(json.dumps(as_json(settings), indent=2) + "\n")
        return 0
    rows = list(effective(settings))
    key_width = max(len(key) for key, _, _ in rows)
    file = settings.config_file or "none"
    sys.stdout.write(f"configuration file: {file}\n")
    for key, value, origin in rows:
        sys.stdout.write(f"{key:<{key_width}} : {value}  ({origin})\n")
    return 0


def start_logging(settings: Settings, *, is_daemon: bool) -> None:
    """Start the log as the settings say; a one-shot command logs to standard error."""
    from ncps.observe import logs  # noqa: PLC0415 - imports Twisted, which takes longer than to print the settings

    logs.start_logging(
        settings.log.level,
        sys.stdout if is_daemon else sys.stderr,
        human=settings.log.console_writer_enabled,
        prefix=settings.log.console_writer_prefix,
        is_queued=is_daemon,
    )
    logs.log_warnings(settings.warnings)


def _dispatch(options: argparse.Namespace, settings: Settings, commands: Commands) -> int:
    if options.run:
        return int(named(options.run)(options, settings))
    if options.command == "settings":
        return _print_settings(settings, is_json=options.json)
    is_daemon = options.command == "serve"
    if is_daemon and settings.server.workers > 1:
        return commands.serve_with_workers(settings)  # starts the log after its last fork
    start_logging(settings, is_daemon=is_daemon)
    if is_daemon:
        return commands.serve(settings)
    if options.command == "migrate up":
        return commands.migrate_up(settings, options.dry_run)
    if options.command == "migrate status":
        return commands.migrate_status(settings)
    if options.command.startswith("keys "):
        return commands.keys(settings, options)
    return commands.rebuild(settings)


def explain(options: argparse.Namespace) -> int:
    """Run `ncps help WORDS`."""
    return run([*options.words, "--help"])


def run(
    arguments: Sequence[str],
    *,
    commands: Commands = COMMANDS,
    surroundings: Surroundings | None = None,
) -> int:
    """Run the command of the arguments and return the exit code.

    :param commands: replaces the real commands.
    :param surroundings: replaces those of this process.
    """
    if surroundings is None and WORKER in os.environ:
        return _work()
    given: dict[str, list[str]] = {}
    try:
        words = spell_out(arguments)
        options, left = build_parser(given, words).parse_known_args(words)
    except UnknownWord as error:
        _complain(describe_word(error, words))
        return USAGE_ERROR
    except WrongWords as error:
        _complain([str(error)])
        return USAGE_ERROR
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    if left:
        _complain(describe_unknown(left, words))
        return USAGE_ERROR
    if options.command is None:
        _complain(["which command? serve, migrate, rebuild, settings or keys (--help lists all)"])
        return USAGE_ERROR
    if options.missing:
        _complain([options.missing])
        return USAGE_ERROR
    return _perform(options, given, commands, surroundings)


def _perform(
    options: argparse.Namespace,
    given: dict[str, list[str]],
    commands: Commands,
    surroundings: Surroundings | None,
) -> int:
    """Run the command, and print each of its errors in one line."""
    try:
        if not options.takes_settings:
            code = int(named(options.run)(options))
        else:
            code = _dispatch(options, load(given, surroundings=surroundings), commands)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except WrongWords as error:
        _complain([str(error)])
        return USAGE_ERROR
    except InvalidSettings as error:
        _complain(error.warnings, "warning")
        _complain(error.problems)
        return USAGE_ERROR
    except NcpsError as error:
        _complain([str(error)])
        return 1
    except MemoryError:
        _complain(["there is not enough memory"])
        return 1
    except KeyboardInterrupt:
        return 130
