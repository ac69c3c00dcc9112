"""The parser of the command line, made from the commands and the table of settings."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import ncps
from ncps.commandline.word import Command, Word
from ncps.commandline.words import COMMANDS
from ncps.settings.hints import hint_for
from ncps.settings.report import groups
from ncps.settings.setting import Setting, Status
from ncps.settings.showing import quote
from ncps.settings.table import by_flag

DESCRIPTION: Final = "A pull-through binary cache for Nix."
_REST: Final = "This command accepts all settings that `ncps serve --help` explains."
_REST_OF_MOST: Final = "Most commands accept all settings that `ncps serve --help` explains."
_FORMER: Final = (
    "The Go program's fsck, migrate-narinfo, migrate-nar-to-chunks and migrate-chunks-to-nar print"
    " what replaces them."
)


_LONGEST: Final = 100
_UNNAMED: Final = frozenset(
    name
    for command in COMMANDS
    for name in (*command.aliases, *([command.name] if command.is_former else []))
)
"""Commands that messages and help do not name."""


class WrongWords(Exception):
    """The command line is wrong."""


class UnknownWord(WrongWords):
    """A word in the place of a command, a step or a shell is unknown.

    :param place: `command`, `step` or `shell`.
    :param what: the right words, for the message.
    """

    def __init__(self, place: str, text: str, what: str) -> None:
        super().__init__(f"unknown {place} {quote(text)}: {what}")
        self.place = place
        self.text = text
        self.what = what


class _Parser(argparse.ArgumentParser):
    """A parser that raises errors instead of printing the usage of a hundred flags."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise UnknownWord, which names the closest command, step or shell, or all of them."""
        if action.choices is None or value in action.choices:
            return
        text = str(value)[:_LONGEST]
        close = difflib.get_close_matches(text, action.choices, n=1)
        names = [name for name in action.choices if name not in _UNNAMED]
        all_of_them = f"{', '.join(names[:-1])} or {names[-1]}".removeprefix(" or ")
        hint = f"did you mean {close[0]}" if close else all_of_them
        raise UnknownWord(str(action.metavar).lower(), str(value), f"{hint}? (--help lists all)")

    def error(self, message: str) -> NoReturn:
        raise WrongWords(message)


class _Later:
    """The parser of a command, made only when the command is parsed.

    :param options: arguments of the constructor of `_Parser`.
    :ivar fill: adds arguments and steps to the parser.
    """

    def __init__(self, **options: Any) -> None:
        self.fill: Callable[[_Parser], None] = lambda _: None
        self._options = options

    def _check_help(self, action: argparse.Action) -> None:
        """Do nothing; `ArgumentParser` of Python 3.14 and later calls this for each command."""

    def parse_known_args(self, args: Any = None, namespace: Any = None, **rest: Any) -> Any:
        """Make the parser and parse, as `ArgumentParser.parse_known_args` does."""
        parser = _Parser(**self._options)
        self.fill(parser)
        return parser.parse_known_args(args, namespace, **rest)


class _Settings:
    """The settings as arguments of parsers: those that the arguments mention or the help shows.

    :param given: parsers add the texts of settings to it, by flag.
    :param arguments: the arguments that will be parsed; None if they are not known yet.
    """

    def __init__(self, given: dict[str, list[str]], arguments: Sequence[str] | None) -> None:
        self._given = given
        words = None if arguments is None else {word.partition("=")[0] for word in arguments}
        self._words = words
        self._is_help = words is None or not words.isdisjoint(("-h", "--help"))

    def add(self, parser: argparse.ArgumentParser, *, shown: bool) -> None:
        """Add settings to a parser; General ones are always in its help."""
        for name, members in groups().items():
            is_shown = (shown or name == "General") and self._is_help
            group = parser.add_argument_group(heading(name, members)) if is_shown else parser
            for setting in members:
                if is_shown or self._is_mentioned(setting.flag):
                    self._add(group, setting, is_shown=is_shown)
        plain = {setting.flag for members in groups().values() for setting in members}
        for flag in by_flag():
            if flag not in plain and self._is_mentioned(flag):
                parser.add_argument(
                    f"--{flag}",
                    action=_Give,
                    given=self._given,
                    dest=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,
                )

    def _is_mentioned(self, flag: str) -> bool:
        return self._words is None or f"--{flag}" in self._words

    def _add(self, group: Any, setting: Setting, *, is_shown: bool) -> None:
        text = f"{setting.help}\n[{names_of(setting)}]".replace("%", "%%")
        group.add_argument(
            f"--{setting.flag}",
            action=_Give,
            given=self._given,
            dest=argparse.SUPPRESS,
            metavar=setting.kind.metavar,
            nargs="?" if setting.is_flag_alone_true else None,
            const="true" if setting.is_flag_alone_true else None,
            help=text if is_shown else argparse.SUPPRESS,
        )


BORROWED: Final = (
    "argparse.ArgumentParser._check_value",
    "argparse.HelpFormatter._split_lines",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class _Formatter(argparse.HelpFormatter):
    """A formatter that keeps the line breaks of a help text, and never splits a name."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [
            line
            for part in text.split("\n")
            for line in textwrap.wrap(part, width, break_on_hyphens=False, break_long_words=False)
        ]


class _Give(argparse.Action):
    """An action that adds the text of a setting to `given`, under its flag."""

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


def names_of(setting: Setting) -> str:
    """Return the other names of a setting, and its default, in one line."""
    notes = [setting.environment] + ([setting.key] if setting.key else [])
    if setting.is_secret:
        notes.append(f"or a file that holds it: --{setting.flag}-file")
    if setting.repeatable:
        notes.append("repeatable")
    if setting.default_text:
        notes.append(f"default: {setting.default_text}")
    return "; ".join(notes)


def heading(group: str, members: Sequence[Setting]) -> str:
    """Return the heading of a group of settings."""
    return group if members[0].status is Status.ACTIVE else f"{group} (only the default)"


def settings_help() -> str:
    """Return the help of every setting, by group, as `ncps serve --help` prints it."""
    parser = _Parser(add_help=False, usage=argparse.SUPPRESS, formatter_class=_Formatter)
    _Settings({}, None).add(parser, shown=True)
    return parser.format_help()


def _number(bounds: tuple[int, int], text: str) -> int:
    least, largest = bounds
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= largest:
        raise argparse.ArgumentTypeError(f"should be a number from {least} to {largest}")
    return number


def _add_word(parser: argparse.ArgumentParser, word: Word) -> None:
    help_ = word.help
    if word.default is not None:
        help_ = f"{help_}\n[default: {word.default}]"
    options: dict[str, Any] = {"help": help_.replace("%", "%%"), "default": word.default}
    if word.is_flag and not word.metavar:
        parser.add_argument(word.name, action="store_true", help=options["help"])
        return
    if word.bounds is not None:
        options["type"] = partial(_number, word.bounds)
    if word.choices:
        options["choices"] = word.choices
    if word.many:
        options["nargs"] = word.many
    parser.add_argument(word.name, metavar=word.metavar, **options)


def _add_command(
    settings: _Settings,
    under: argparse._SubParsersAction[Any],
    command: Command,
    above: str = "",
) -> None:
    """Add a command. Most commands accept settings; only the help of `serve` explains them."""
    name = f"{above}{command.name}"
    shown: dict[str, Any] = {} if command.is_former else {"help": command.help}
    own = [usage_of(word) for word in command.words if not command.is_former]
    words = [f"ncps {name}", *own, *(["STEP"] if command.children else [])]
    if command.takes_settings:
        words.append("[--SETTING VALUE ...]")
    later: _Later = under.add_parser(
        command.name,
        aliases=list(command.aliases),
        description=command.help,
        epilog=None if name == "serve" or not command.takes_settings else _REST,
        usage=" ".join(words).replace("%", "%%"),
        allow_abbrev=False,
        formatter_class=_Formatter,
        **shown,
    )
    later.fill = partial(_fill, settings, command, name)


def _fill(settings: _Settings, command: Command, name: str, parser: _Parser) -> None:
    """Add the arguments, steps and settings of a command to its parser."""
    parser.set_defaults(
        command=name,
        run=command.run,
        takes_settings=command.takes_settings,
        missing=which_step(name, command),
    )
    for word in command.words:
        _add_word(parser, word)
    if command.takes_settings:
        settings.add(parser, shown=name == "serve")
    if command.children:
        steps = _subparsers(parser, "step")
        for child in command.children:
            _add_command(settings, steps, child, f"{name} ")


def _subparsers(parser: _Parser, word: str) -> argparse._SubParsersAction[Any]:
    later: Any = _Later
    return parser.add_subparsers(dest=word, metavar=word.upper(), parser_class=later)


def which_step(name: str, command: Command) -> str:
    """Return a message that names the steps of a command; empty if it has none."""
    steps = [f"`ncps {name} {child.name}`: {child.help}" for child in command.children]
    return f"which step? {' '.join(steps)}" if steps else ""


def usage_of(word: Word) -> str:
    """Return a word as a usage line shows it, in brackets if it is optional."""
    if not word.is_flag:
        return f"[{word.metavar} ...]" if word.many == "*" else word.metavar
    return f"[{word.name} {word.metavar}]" if word.metavar else f"[{word.name}]"


def build_parser(
    given: dict[str, list[str]], arguments: Sequence[str] | None = None
) -> argparse.ArgumentParser:
    """Make the parser.

    :param given: the parser adds the texts of settings to it, by flag.
    :param arguments: the arguments that it will parse; it knows only the settings in them.
    """
    parser = _Parser(
        prog="ncps",
        usage="ncps [--SETTING VALUE ...] COMMAND [--SETTING VALUE ...]",
        description=DESCRIPTION,
        epilog=f"`ncps help COMMAND` explains a command. {_REST_OF_MOST} {_FORMER}",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"ncps {ncps.__version__}")
    settings = _Settings(given, arguments)
    settings.add(parser, shown=False)
    commands = _subparsers(parser, "command")
    for command in COMMANDS:
        _add_command(settings, commands, command)
    return parser


def spell_out(arguments: Sequence[str]) -> list[str]:
    """Write `--flag` of a boolean as `--flag=true`, so that the next word is not its value."""
    booleans = {f"--{flag}" for flag, setting in by_flag().items() if setting.is_flag_alone_true}
    found: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return found + list(arguments[i:])
        found.append(f"{argument}=true" if argument in booleans else argument)
    return found


def describe_word(error: UnknownWord, words: Sequence[str]) -> list[str]:
    """Return a sentence about an unknown word, which may be a part of a secret.

    :param words: all words of the command line.
    """
    before = words[: words.index(error.text)] if error.text in words else words
    known = {word.name for word in _all_words(COMMANDS)} if error.place != "command" else set()
    unknown = [flag for flag in _flags(before) if flag[2:] not in by_flag() and flag not in known]
    if unknown:  # the word may be the value of the unknown flag
        return describe_unknown(unknown, words)
    doubt = _doubt(before)
    return [f"unknown {error.place}{doubt}: {error.what}" if doubt else str(error)]


def _all_words(commands: Iterable[Command]) -> Iterator[Word]:
    for command in commands:
        yield from command.words
        yield from _all_words(command.children)


def _flags(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("-") and word != "--"]


def _doubt(words: Sequence[str]) -> str:
    """Return the reason not to repeat a word that follows these; empty if there is none."""
    for flag in _flags(words):
        setting = by_flag().get(flag[2:])
        if setting is not None and setting.is_secret:
            return f" (not repeated here, since it may be a part of the value of {flag})"
    return ""


def describe_unknown(left: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return a sentence for each word that the parser left over.

    :param words: all words of the command line.
    """
    flags = _flags(left)
    if not flags:
        return [f"unexpected argument{_doubt(words) or f' {quote(left[0])}'}"]
    problems = []
    for flag in flags:
        hint = hint_for(flag.removeprefix("--"), by_flag(), "--")
        problems.append(f"unknown flag {flag}{hint}")
    return problems
