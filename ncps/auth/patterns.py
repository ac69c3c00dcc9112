"""Patterns of store paths: regular expressions that match any text quickly.

Python matches by backtracking: `(a+)+b` needs years for 60 letters a. So this module parses a
pattern before its use, and computes the number of ways to match the longest base name. Literals,
`.`, classes and `|` in groups are allowed, and `* + ? {m,n}` after one character or class. A group
must not be repeated. There may be 250,000 ways in all, which take some milliseconds.
"""

from __future__ import annotations

import re
from typing import Final

from ncps.errors import Malformed

LONGEST_NAME: Final = 32 + 1 + 211
"""Characters of the base name of a store path, at most."""
LONGEST: Final = 512
"""Characters of a pattern, at most."""
MOST_WAYS: Final = 250_000
"""Ways to match, at most. Two unbounded repetitions (`.*`) and four alternatives have fewer."""

_ESCAPED: Final = "dws"
_COUNT: Final = re.compile(r"\{(\d{1,3})(,(\d{0,3}))?\}", re.ASCII)


def compiled(text: str) -> re.Pattern[str]:
    """Compile a pattern that must match a whole base name.

    Raises Malformed, with the reason, if it is no regular expression or not allowed.
    """
    if not text or len(text) > LONGEST:
        raise Malformed(f"the pattern should have 1 to {LONGEST} characters")
    if not text.isascii() or not text.isprintable():
        raise Malformed("the pattern should be of printable ASCII characters")
    scan = _Scan(text)
    ways = scan.alternatives()
    if scan.at < len(text):
        raise Malformed(f"the pattern has one parenthesis too many at character {scan.at + 1}")
    if ways > MOST_WAYS:
        raise Malformed(
            "the pattern could take too long: it may have two repetitions such as .* at most"
        )
    try:
        return re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise Malformed(f"the pattern is no regular expression: {error}") from None


class _Scan:
    """Parses a pattern from left to right, and counts the ways to match it.

    :ivar at: index of the next character.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self.at = 0

    def _peek(self) -> str:
        return self._text[self.at : self.at + 1]

    def alternatives(self) -> int:
        """Parse up to a closing parenthesis or to the end; return the number of ways."""
        ways = self._sequence()
        while self._peek() == "|":
            self.at += 1
            ways += self._sequence()
        return ways

    def _sequence(self) -> int:
        ways = 1
        while self._peek() not in ("", "|", ")"):
            is_group = self._peek() == "("
            inner = self._group() if is_group else self._single()
            ways = min(ways * self._repeated(inner, is_group=is_group), MOST_WAYS + 1)
        return ways

    def _group(self) -> int:
        self.at += 1
        if self._text.startswith("?", self.at):
            if not self._text.startswith("?:", self.at):
                raise Malformed("the pattern has a group with ?, of which only (?:...) may be used")
            self.at += 2
        self._depth += 1
        if self._depth > 10:
            raise Malformed("the pattern has too many groups in each other")
        ways = self.alternatives()
        self._depth -= 1
        if self._peek() != ")":
            raise Malformed("the pattern has a group without its end")
        self.at += 1
        return ways

    def _single(self) -> int:
        letter = self._peek()
        if letter in "*+?{":
            raise Malformed(f"the pattern has a {letter} after nothing that it could repeat")
        if letter == "[":
            return self._class()
        self.at += 1
        if letter == "\\":
            self._escaped()
        return 1

    def _escaped(self) -> None:
        letter = self._peek()
        if not letter or (letter.isalnum() and letter.lower() not in _ESCAPED):
            raise Malformed(f"the pattern has \\{letter}, which may not be used")
        self.at += 1

    def _class(self) -> int:
        self.at += 1
        if self._peek() == "^":
            self.at += 1
        is_first = True
        while is_first or self._peek() != "]":
            letter = self._peek()
            if not letter:
                raise Malformed("the pattern has a [ without its ]")
            self.at += 1
            if letter == "\\":
                self._escaped()
            elif letter == "[" or (letter in "-&~|" and self._peek() == letter):
                raise Malformed(f"the pattern has {letter} in a class; write \\{letter} for it")
            is_first = False
        self.at += 1
        return 1

    def _repeated(self, inner: int, *, is_group: bool) -> int:
        """Parse a repetition after one character or group; return the ways of both together."""
        letter = self._peek()
        if letter not in ("*", "+", "?", "{"):
            return inner
        least, most = self._count(letter)
        if self._peek() in ("*", "+", "?", "{"):
            raise Malformed("the pattern has two repetitions of the same thing")
        if not is_group:
            return most - least + 1
        if (least, most) != (0, 1):
            raise Malformed("the pattern repeats a group, which may take too long")
        return inner + 1

    def _count(self, letter: str) -> tuple[int, int]:
        if letter != "{":
            self.at += 1
            return {"*": (0, LONGEST_NAME), "+": (1, LONGEST_NAME), "?": (0, 1)}[letter]
        match = _COUNT.match(self._text, self.at)
        if match is None:
            raise Malformed("the pattern has a { that is no count such as {2,4}; write \\{ for it")
        self.at = match.end()
        least = int(match[1])
        most = least if match[2] is None else int(match[3] or LONGEST_NAME)
        return least, max(least, min(most, LONGEST_NAME))
