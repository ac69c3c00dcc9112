"""The console command: arguments in, one of the program's commands run, an exit code out.

Every setting is a flag, before or after the command. What is wrong is told in lines of
`ncps: error: ...` on standard error, with exit code 2 for what the user can correct in the
command line or configuration, and 1 for a command that failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from attrs import frozen

import ncps
from ncps.aio.imports import named
from ncps.errors import NcpsError
from ncps.settings.hints import hint_for
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.report import effective, groups
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Setting, Status
from ncps.settings.surroundings import Surroundings
from ncps.settings.table import by_flag

USAGE_ERROR = 2
WORKER = "NCPS_WORKER"
"""The variable by which a process learns that it is one of several workers; see `worker`."""


@frozen(kw_only=True)
class Commands:
    """What can be run; each returns an exit code."""

    serve: Callable[[Settings], int]
    serve_with_workers: Callable[[Settings], int]
    migrate_up: Callable[[Settings, bool], int]
    migrate_status: Callable[[Settings], int]
    rebuild: Callable[[Settings], int]


def _later(name: str) -> Callable[..., int]:
    """Return a function that imports the one it stands for when called.

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
)


_work = _later("ncps.process.worker:work")


class _UsageError(Exception):
    """The command line is wrong."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing a usage of a hundred flags.

    :ivar describe: adds what it takes, once it is known that this parser is the one to parse.
    """

    describe: Callable[[], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `ArgumentParser`."""
        describe, self.describe = self.describe, None
        if describe is not None:
            describe()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


BORROWED: Final = ("argparse.HelpFormatter._split_lines",)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class _Formatter(argparse.HelpFormatter):
    """Keeps the line that names a setting apart from its explanation, and names in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [
            line
            for part in text.split("\n")
            for line in textwrap.wrap(part, width, break_on_hyphens=False, break_long_words=False)
        ]


class _Give(argparse.Action):
    """Notes a setting's text under its flag, whatever parser meets it."""

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        given: dict[str, list[str]],
        **rest: object,
    ) -> None:
        super().__init__(option_strings, dest, **rest)  # type: ignore[arg-type]
        self.given = given

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Append the text."""
        self.given.setdefault(self.option_strings[0].removeprefix("--"), []).append(str(values))


def _help_of(setting: Setting) -> str:
    notes = [setting.environment] + ([setting.key] if setting.key else [])
    if setting.is_secret:
        notes.append(f"or a file that holds it: --{setting.flag}-file")
    if setting.repeatable:
        notes.append("repeatable")
    if setting.default_text:
        notes.append(f"default: {setting.default_text}")
    return f"{setting.help}\n[{'; '.join(notes)}]".replace("%", "%%")


def _add_settings(
    parser: argparse.ArgumentParser, given: dict[str, list[str]], *, shown: bool
) -> None:
    """Let the parser take every setting; General ones are always in its help."""
    for name, members in groups().items():
        is_shown = shown or name == "General"
        described = name if members[0].status is Status.ACTIVE else f"{name} (only the default)"
        group = parser.add_argument_group(described) if is_shown else parser
        for setting in members:
            group.add_argument(
                f"--{setting.flag}",
                action=_Give,
                given=given,
                dest=argparse.SUPPRESS,
                metavar=setting.kind.metavar,
                nargs="?" if setting.is_flag_alone_true else None,
                const="true" if setting.is_flag_alone_true else None,
                help=_help_of(setting) if is_shown else argparse.SUPPRESS,
            )
    plain = {setting.flag for members in groups().values() for setting in members}
    for flag in by_flag():
        if flag not in plain:
            parser.add_argument(
                f"--{flag}",
                action=_Give,
                given=given,
                dest=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )


def build_parser(given: dict[str, list[str]]) -> argparse.ArgumentParser:
    """Make the parser.

    :param given: filled with the settings' texts by flag while it parses.
    """

    def described(parser: _Parser, *, shown: bool = False) -> None:
        parser.describe = partial(_add_settings, parser, given, shown=shown)

    rest = "Every setting that `ncps serve --help` explains is understood here too."
    parser = _Parser(
        prog="ncps",
        usage="ncps [--SETTING VALUE ...] COMMAND [--SETTING VALUE ...]",
        description="A pull-through binary cache for Nix.",
        epilog=f"`ncps COMMAND --help` tells more. {rest}",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"ncps {ncps.__version__}")
    described(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(
        under: argparse._SubParsersAction[_Parser],
        name: str,
        help_: str,
        aliases: Sequence[str] = (),
        usage: str = "",
    ) -> _Parser:
        added = under.add_parser(
            name,
            aliases=list(aliases),
            help=help_,
            description=help_,
            usage=f"ncps {usage or name} [--SETTING VALUE ...]",
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        added.set_defaults(command=usage or name)
        described(added, shown=name == "serve")
        if name != "serve":
            added.epilog = rest
        return added

    add(commands, "serve", "Run the cache until it is told to stop.", aliases=["s"])
    migrate = add(commands, "migrate", "Look after the schema of the database.")
    steps = migrate.add_subparsers(dest="step", metavar="STEP", required=True, parser_class=_Parser)
    up = add(steps, "up", "Bring the schema up to date.", usage="migrate up")
    up.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
    add(steps, "status", "Say which migrations are applied.", usage="migrate status")
    add(commands, "rebuild", "Make the database anew from what the store holds.")
    add(
        commands,
        "settings",
        "Print the settings that hold and where each came from.",
        aliases=["check-config"],
    )
    return parser


def _spell_out(arguments: Sequence[str]) -> list[str]:
    """Write `--flag` of a boolean as `--flag=true`, so that it never takes the next word."""
    booleans = {f"--{flag}" for flag, setting in by_flag().items() if setting.is_flag_alone_true}
    found: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return found + list(arguments[i:])
        found.append(f"{argument}=true" if argument in booleans else argument)
    return found


def _describe_unknown(left: Sequence[str]) -> list[str]:
    flags = [word.partition("=")[0] for word in left if word.startswith("-") and word != "--"]
    if not flags:
        return [f"unexpected argument {left[0]!r}"]
    problems = []
    for flag in flags:
        hint = hint_for(flag.removeprefix("--"), by_flag(), "--")
        problems.append(f"unknown flag {flag}{hint}")
    return problems


def _complain(problems: Sequence[str], kind: str = "error") -> None:
    for problem in problems:
        sys.stderr.write(f"ncps: {kind}: {problem}\n")


def _print_settings(settings: Settings) -> int:
    rows = list(effective(settings))
    key_width = max(len(key) for key, _, _ in rows)
    file = settings.config_file or "none"
    sys.stdout.write(f"configuration file: {file}\n")
    for key, value, origin in rows:
        sys.stdout.write(f"{key:<{key_width}} : {value}  ({origin})\n")
    _complain(settings.warnings, "warning")
    return 0


def _start_logging(settings: Settings, *, is_daemon: bool) -> None:
    """Log as the settings say; one-shot commands leave standard output to their results."""
    from ncps.observe import logs  # noqa: PLC0415 - Twisted, which takes longer than to print the settings

    logs.start_logging(
        settings.log.level,
        sys.stdout if is_daemon else sys.stderr,
        human=settings.log.console_writer_enabled,
        prefix=settings.log.console_writer_prefix,
        is_queued=is_daemon,
    )
    logs.log_warnings(settings.warnings)


def _dispatch(options: argparse.Namespace, settings: Settings, commands: Commands) -> int:
    if options.command == "settings":
        return _print_settings(settings)
    _start_logging(settings, is_daemon=options.command == "serve")
    if options.command == "serve":
        is_alone = settings.server.workers == 1
        return (commands.serve if is_alone else commands.serve_with_workers)(settings)
    if options.command == "migrate up":
        return commands.migrate_up(settings, options.dry_run)
    if options.command == "migrate status":
        return commands.migrate_status(settings)
    return commands.rebuild(settings)


def run(
    arguments: Sequence[str],
    *,
    commands: Commands = COMMANDS,
    surroundings: Surroundings | None = None,
) -> int:
    """Do what the arguments say and return the exit code.

    :param commands: what to run instead of the real ones.
    :param surroundings: what to see instead of this process.
    """
    if surroundings is None and WORKER in os.environ:
        return _work()
    given: dict[str, list[str]] = {}
    try:
        options, left = build_parser(given).parse_known_args(_spell_out(arguments))
    except _UsageError as error:
        _complain([str(error)])
        return USAGE_ERROR
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    if left:
        _complain(_describe_unknown(left))
        return USAGE_ERROR
    if options.command is None:
        _complain(["which command? serve, migrate, rebuild or settings (--help tells more)"])
        return USAGE_ERROR
    try:
        settings = load(given, surroundings=surroundings)
    except InvalidSettings as error:
        _complain(error.warnings, "warning")
        _complain(error.problems)
        return USAGE_ERROR
    try:
        return _dispatch(options, settings, commands)
    except NcpsError as error:
        _complain([str(error)])
        return 1
    except KeyboardInterrupt:
        return 130
