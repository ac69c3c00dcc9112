"""Kinds of plain values: durations, sizes, numbers, words, names and paths.

This is the only place that parses units. Durations have the syntax of Go's `time.ParseDuration`,
sizes are a number and one letter in powers of 1024, since existing configurations use both; units
with an i (GiB, Gi) mean the same, and GB is a power of 1000.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from ncps.settings.setting import Kind
from ncps.settings.showing import quote_key

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_QUANTITY = re.compile(
    r"(\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII
)
_SIZE = re.compile(r"(\d{1,15})(?:B|([KMGT])(I?B|I)?)", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_SECRET_KEY_SIZE = 64
_SECRET_KEY = re.compile(r"[^:]*:[A-Za-z0-9+/]{80,}={0,2}", re.ASCII)
_LONGEST_S = 2**63 / 10**9
_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_DURATION = "a duration such as 300ms, 5s, 10m or 1h30m"
_BYTES = "a size such as 512K, 64M or 10G"


def parse_duration(text: str) -> float:
    """Return seconds."""
    if text == "0":
        return 0.0
    total = Decimal(0)
    position = 0
    while match := _QUANTITY.match(text, position):
        total += Decimal(match[1]) * _NANOSECONDS[match[2]]
        position = match.end()
    if position != len(text) or not text:
        raise ValueError(f"should be {_DURATION}")
    seconds = float(total / 10**9)
    if seconds > _LONGEST_S:
        raise ValueError("is longer than 292 years")
    return seconds


def show_duration(value: object) -> str:
    """Write seconds as `1h30m`; below a century, `parse_duration` reads back the exact value."""
    assert isinstance(value, float)
    rest = round(Decimal(value) * 10**9)
    parts = []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Return bytes."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"should be {_BYTES}")
    letter, unit = (match[2] or "B").upper(), (match[3] or "").upper()
    power = "BKMGT".index(letter)
    return int(match[1]) * 1000**power if unit == "B" else int(match[1]) << 10 * power


def show_size(value: object) -> str:
    """Write bytes in the largest unit that gives a whole number."""
    assert isinstance(value, int)
    for power, letter in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if value and value % (1 << power) == 0:
            return f"{value >> power}{letter}"
    return f"{value}B"


def parse_boolean(text: str) -> bool:
    """Read true, false, 1 or 0."""
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise ValueError("should be true or false") from None


def parse_integer(text: str) -> int:
    """Read a whole number of at most 18 digits."""
    if _INTEGER.fullmatch(text) is None:
        raise ValueError("should be a whole number")
    return int(text)


def parse_text(text: str) -> str:
    """Accept one line of printable text."""
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def parse_hostname(text: str) -> str:
    """Accept a bare host name: it becomes the name of the signing key."""
    if "/" in text:
        raise ValueError("should be a bare host name, without scheme and path")
    if ":" in text:
        raise ValueError("should be a bare host name, without a port")
    if _HOSTNAME.fullmatch(text) is None:
        raise ValueError("should be a bare host name such as cache.example.org")
    return text


def hostname_of_machine(name: str) -> str:
    """Turn the host name of the machine into one that `parse_hostname` accepts."""
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower())[:253].strip("-.") or "ncps"


def parse_path(text: str) -> Path:
    """Return an absolute path; `~/` is the home directory, others are in the working directory."""
    if not text or "\0" in text:
        raise ValueError("should be a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("names the home directory of an unknown user") from None


def parse_optional_path(text: str) -> Path | None:
    """Return an absolute path, or None for no text."""
    return parse_path(text) if text else None


def parse_key_path(text: str) -> Path | None:
    """Return an absolute path, or None for no text; the key itself is refused."""
    if _SECRET_KEY.fullmatch(text.strip()):
        raise ValueError("should be the name of a file that holds the key, not the key itself")
    return parse_optional_path(text)


def parse_public_key(text: str) -> str:
    """Check Nix's form NAME:BASE64 of 32 bytes; as in Nix, the = at its end may be missing."""
    name, _, encoded = text.partition(":")
    if "=" not in encoded:
        encoded += "=" * (-len(encoded) % 4)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) == _SECRET_KEY_SIZE:
        raise ValueError(
            "is a secret key, which belongs in a file of its own: give its public half here, "
            "which `nix key convert-secret-to-public` prints"
        )
    if not name.isprintable() or not name or " " in name or len(raw) != 32:
        raise ValueError("should be a public key as Nix writes it, NAME:BASE64 of 32 bytes")
    return f"{name}:{encoded}"


def parse_store_dir(text: str) -> str:
    """Accept the one store directory this version can serve."""
    if text.rstrip("/") != "/nix/store":
        raise ValueError("should be /nix/store: other store directories are not supported yet")
    return "/nix/store"


def show_optional(value: object) -> str:
    """Write a value, and None as an empty text."""
    return "" if value is None else str(value)


def show_boolean(value: object) -> str:
    """Write true or false."""
    return "true" if value else "false"


def duration(*, at_least_s: float = 0.0) -> Kind:
    """Make the kind of durations, in seconds."""

    def parse(text: str) -> float:
        value = parse_duration(text)
        if value < at_least_s:
            raise ValueError(f"should be at least {show_duration(float(at_least_s))}")
        return value

    return Kind(
        metavar="DURATION",
        expected=_DURATION,
        parse=parse,
        show=show_duration,
        suffix="_s",
    )


def integer(at_least: int = 0, at_most: int = 2**31 - 1) -> Kind:
    """Make the kind of whole numbers within bounds."""

    def parse(text: str) -> int:
        value = parse_integer(text)
        if not at_least <= value <= at_most:
            raise ValueError(f"should be between {at_least} and {at_most}")
        return value

    return Kind(metavar="N", expected="a whole number", parse=parse, natives=(int,))


def size(*, at_least: int = 0, at_most: int = 2**63 - 1) -> Kind:
    """Make the kind of sizes within bounds, in bytes."""

    def parse(text: str) -> int:
        value = parse_size(text)
        if not at_least <= value <= at_most:
            raise ValueError(f"should be between {show_size(at_least)} and {show_size(at_most)}")
        return value

    return Kind(metavar="SIZE", expected=_BYTES, parse=parse, show=show_size, suffix="_bytes")


def choice(words: Sequence[str]) -> Kind:
    """Make the kind of values that are one of a few words."""
    expected = "one of " + ", ".join(words)

    def parse(text: str) -> str:
        if text not in words:
            close = difflib.get_close_matches(text[:64].lower(), words, n=1)
            raise ValueError(
                f"should be {expected}" + (f": did you mean {close[0]}?" if close else "")
            )
        return text

    return Kind(
        metavar="WORD", expected=expected, parse=parse, false="off" if "off" in words else ""
    )


def boolean_or(word: str) -> Kind:
    """Make the kind of values that are a boolean or one other word; the values are texts."""
    expected = f"true, false or {word}"

    def parse(text: str) -> str:
        if text == word:
            return word
        try:
            return show_boolean(parse_boolean(text))
        except ValueError:
            raise ValueError(f"should be {expected}") from None

    return Kind(metavar="WORD", expected=expected, parse=parse, natives=(bool, int))


def secret(at_least: int) -> Kind:
    """Make the kind of secrets of `at_least` characters or more; an empty text is no secret."""

    def parse(text: str) -> str:
        if text and len(text) < at_least:
            raise ValueError(f"should have at least {at_least} characters")
        return parse_text(text)

    return Kind(metavar="SECRET", expected=f"at least {at_least} characters", parse=parse)


TEXT = Kind(metavar="TEXT", expected="text (in quotes)", parse=parse_text)
BOOLEAN = Kind(
    metavar="BOOL",
    expected="true or false",
    parse=parse_boolean,
    natives=(bool, int),
    show=show_boolean,
)
SIZE = Kind(metavar="SIZE", expected=_BYTES, parse=parse_size, show=show_size, suffix="_bytes")
HOSTNAME = Kind(metavar="HOST", expected="a host name", parse=parse_hostname)
PATH = Kind(metavar="PATH", expected="a path", parse=parse_path)
OPTIONAL_PATH = Kind(
    metavar="PATH", expected="a path", parse=parse_optional_path, show=show_optional
)
KEY_PATH = Kind(
    metavar="PATH",
    expected="a path",
    parse=parse_key_path,
    show=show_optional,
    quote=quote_key,
)
PUBLIC_KEY = Kind(
    metavar="NAME:BASE64", expected="a public key", parse=parse_public_key, quote=quote_key
)
STORE_DIR = Kind(metavar="PATH", expected="a store directory", parse=parse_store_dir)
