"""Reads netrc files: user names and passwords for upstreams, by host name.

The format is that of curl, which Nix itself uses: words, `"quoted words"` with backslashes, and
comments, which begin with `#` in the place of a keyword. The standard library's module is not used,
because its errors quote the content of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import Factory, field, frozen

from ncps.errors import Malformed, Unavailable

_LARGEST = 1 << 20
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t"}


@frozen(kw_only=True)
class _Entry:
    """The values behind one `machine` or `default`."""

    user: str = ""
    password: str | None = field(default=None, repr=False)


@frozen
class Netrc:
    """The entries of a file; the first entry of a host counts. The repr shows no password."""

    machines: Mapping[str, _Entry] = Factory(dict)
    default: _Entry | None = None

    def credentials(self, host: str) -> tuple[str, str] | None:
        """Return user (may be empty) and password for a host without port; None if unknown."""
        entry = self.machines.get(host.lower(), self.default)
        if entry is None or (entry.password is None and not entry.user):
            return None
        return entry.user, entry.password or ""


@frozen
class _Word:
    line: int
    text: str = field(repr=False)
    is_quoted: bool = False


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _CONTROL.get(found[1], found[1]), text)


class _Words:
    """The words of the text, with their line numbers."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line = 1

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _skip_space(self) -> None:
        rest = re.compile(r"\s*").match(self._text, self._position)
        assert rest is not None
        self._advance(rest.end())

    def take(self) -> _Word | None:
        """Return the next word, None at the end."""
        self._skip_space()
        if self._position == len(self._text):
            return None
        line = self._line
        match = _WORD.match(self._text, self._position)
        assert match is not None
        self._advance(match.end())
        if match[1] is not None:
            return _Word(line, _unescape(match[1]), True)
        if match[2].startswith('"'):
            raise Malformed(f"line {line}: a quote is not closed")
        return _Word(line, match[2])

    def skip_line(self) -> None:
        """Skip to the end of this line."""
        end = self._text.find("\n", self._position)
        self._advance(len(self._text) if end < 0 else end)

    def skip_macro(self) -> None:
        """Skip a macro, which ends after the next empty line."""
        end = re.compile(r"\n[ \t\r]*(?=\n)|\Z").search(self._text, self._position)
        self._advance(end.end() if end else len(self._text))


def _value(words: _Words, keyword: _Word) -> str:
    word = words.take()
    if word is None:
        raise Malformed(f"line {keyword.line}: {keyword.text} without a value")
    return word.text


def _entries(words: _Words) -> Iterator[tuple[str | None, _Entry]]:
    """Yield each host (None for the default) with its entry, in order."""
    host: str | None = None
    facts: dict[str, str] | None = None
    while (word := words.take()) is not None:
        if word.is_quoted:
            raise Malformed(f"line {word.line}: a keyword is expected")
        if word.text.startswith("#"):
            words.skip_line()
        elif word.text in {"machine", "default"}:
            if facts is not None:
                yield host, _entry(facts)
            host = _value(words, word) if word.text == "machine" else None
            facts = {}
        elif word.text == "macdef":
            _value(words, word)
            words.skip_macro()
        elif word.text in {"login", "user", "password", "account"}:
            if facts is None:
                raise Malformed(f"line {word.line}: {word.text} before any machine")
            facts[word.text] = _value(words, word)
        else:
            raise Malformed(f"line {word.line}: a keyword is expected")
    if facts is not None:
        yield host, _entry(facts)


def _entry(facts: Mapping[str, str]) -> _Entry:
    return _Entry(user=facts.get("login", facts.get("user", "")), password=facts.get("password"))


def parse(text: str) -> Netrc:
    """Parse the text of a netrc file.

    Raises Malformed if it is none; the message has the number of the line, and never quotes it.
    """
    machines: dict[str, _Entry] = {}
    default: _Entry | None = None
    for host, entry in _entries(_Words(text)):
        if host is None:
            default = default or entry
        else:
            machines.setdefault(host.lower(), entry)
    return Netrc(machines, default)


def read(path: Path, *, is_expected: bool = False) -> Netrc:
    """Read a netrc file; treat a missing file as empty, unless it is expected.

    Blocks. Call it at the start of the program, or in a thread.

    Raises Malformed if it is not a netrc file or larger than 1 MiB, Unavailable if it cannot be
    read, or is expected and missing.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        if is_expected:
            raise Unavailable(f"{path} does not exist") from None
        return Netrc()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise Malformed(f"{path} is larger than {_LARGEST >> 20} MiB")
    try:
        return parse(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"{path}: line {line}: is not UTF-8") from None
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from None
