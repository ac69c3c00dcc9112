"""The command `ncps man`: a manual page from the commands and the table of settings."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Final

import ncps
from ncps.commandline.parser import heading, names_of, usage_of
from ncps.commandline.word import Command, Word
from ncps.commandline.words import every_command
from ncps.settings.report import groups

_WRITTEN: Final = "2026-11-28"
"""The date of the texts in this module."""

_EXIT_CODES: Final = (
    ("0", "The command has succeeded; `serve` has ended after a signal."),
    ("1", "The command has failed, or the daemon could not start. The last line says why."),
    ("2", "The command line or a setting is wrong."),
    ("130", "The command was interrupted."),
)
_SIGNALS: Final = (
    ("SIGTERM, SIGINT", "Stop the daemon after its running answers; a second one cuts them off."),
)
_FILES: Final = (
    ("~/.config/ncps/config.yaml", "The settings, if --config names no other file."),
    ("~/.local/state/ncps/", "The data, in storage/ and db/, if the settings name no other place."),
    ("config/cache.key", "In the storage: the signing key. It cannot be made again."),
)
_EXAMPLES: Final = (
    ("ncps serve", "Run without any configuration, on 127.0.0.1:8501."),
    ("ncps serve --server-addr :8501 --cache-max-size 200G", "Serve a network, with a limit."),
    ("ncps keys show", "Print the key that clients must trust."),
    ("ncps settings --json", "Print all settings as JSON, for a program."),
)


def command(options: Namespace) -> int:
    """Print the page."""
    del options
    sys.stdout.write(page())
    return 0


def page() -> str:
    """Return the page as roff."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH NCPS 1 "{_WRITTEN}" "ncps {_text(ncps.__version__)}" "User Commands"'
    yield ".ad l"
    yield ".SH NAME"
    yield "ncps \\- a pull\\-through binary cache for Nix"
    yield ".SH SYNOPSIS"
    yield ".B ncps"
    yield "[\\fB\\-\\-SETTING\\fR \\fIVALUE\\fR ...] \\fICOMMAND\\fR [\\fB\\-\\-SETTING\\fR"
    yield "\\fIVALUE\\fR ...]"
    yield ".SH DESCRIPTION"
    yield _text(
        "ncps stands between Nix and the binary caches on the internet. It fetches each store path"
        " once, checks it, signs it with its own key, keeps it, and serves it from then on."
    )
    yield ".PP"
    yield _text(
        "Each setting is a flag, an environment variable, or a line in one file in YAML, TOML or"
        " JSON. A flag wins over a variable, a variable over the file, the file over the default."
    )
    yield ".SH COMMANDS"
    for name, each in every_command():
        if not each.children:
            yield from _command(name, each)
    for group, members in groups().items():
        yield f".SH SETTINGS: {_text(heading(group, members)).upper()}"
        for setting in members:
            yield ".TP"
            yield f"\\fB{_text(f'--{setting.flag}')}\\fR \\fI{_text(setting.kind.metavar)}\\fR"
            yield _text(setting.help)
            yield ".br"
            yield f"[{_text(names_of(setting))}]"
    for title, items in (
        ("EXIT STATUS", _EXIT_CODES),
        ("SIGNALS", _SIGNALS),
        ("FILES", _FILES),
        ("EXAMPLES", _EXAMPLES),
    ):
        yield f".SH {title}"
        for name, text in items:
            yield from _item(name, text)
    yield ".SH SEE ALSO"
    yield "\\fBnix.conf\\fR(5), \\fBtwistd\\fR(1)"


def _command(name: str, each: Command) -> Iterator[str]:
    names = ", ".join([name, *each.aliases])
    words = "".join(f" {_text(usage_of(word))}" for word in each.words)
    yield ".TP"
    yield f"\\fB{_text(names)}\\fR{words}"
    yield _text(each.help)
    if each.words and not each.is_former:
        yield ".RS"
        for word in each.words:
            yield from _item(_name(word), _help(word))
        yield ".RE"


def _name(word: Word) -> str:
    if not word.is_flag:
        return word.metavar
    return f"{word.name} {word.metavar}".strip()


def _help(word: Word) -> str:
    return word.help if word.default is None else f"{word.help} [default: {word.default}]"


def _item(name: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{_text(name)}\\fR"
    yield _text(text)


def _text(text: str) -> str:
    """Escape a text for roff, so that it reads no part as a request and prints plain dashes."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    escaped = escaped.replace("`", "\\(ga").replace("'", "\\(aq").replace("^", "\\(ha")
    escaped = escaped.replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
