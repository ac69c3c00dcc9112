"""Kinds of values of S3."""

from __future__ import annotations

import re
from typing import Final

from ncps.settings.kinds.network import parse_upstream
from ncps.settings.setting import Kind
from ncps.settings.showing import quote_nothing

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_HOST: Final = re.compile(r"(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.|\Z))+", re.ASCII)
"""Host names that boto3 accepts: it refuses underscores, which container names may have."""
_EXAMPLE: Final = "https://s3.example.com"
_FROZEN: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def parse_bucket(text: str) -> str:
    """Accept a bucket name that every server accepts, or an empty text."""
    if text and (_BUCKET.fullmatch(text) is None or ".." in text):
        raise ValueError(
            "should be the bare name of a bucket: 3 to 63 lower-case letters, digits, dots and "
            "hyphens"
        )
    return text


def parse_endpoint(text: str) -> str:
    """Accept the URL of a server, or an empty text."""
    if not text:
        return ""
    endpoint = parse_upstream(text, _EXAMPLE)
    if ":" not in endpoint.host and _HOST.fullmatch(endpoint.host) is None:
        raise ValueError(
            f"should name a host of letters, digits, hyphens and single dots, as in {_EXAMPLE}"
        )
    if endpoint.user is not None or "?" in text:
        raise ValueError("should hold neither credentials nor parameters")
    return endpoint.url


def parse_prefix(text: str) -> str:
    """Return the prefix of every key, without slashes at its ends."""
    prefix = text.strip("/")
    if not prefix:
        return ""
    if len(prefix) > 512 or _PREFIX.fullmatch(prefix) is None:
        raise ValueError("should be like caches/nix: letters, digits and !_.*'()- between slashes")
    if {".", ".."} & set(prefix.split("/")):
        raise ValueError("should have no . or .. between its slashes")
    return prefix


def parse_region(text: str) -> str:
    """Accept the name of a region, or an empty text."""
    if text and _WORD.fullmatch(text) is None:
        raise ValueError("should be the name of a region, such as eu-central-1")
    return text


def parse_storage_class(text: str) -> str:
    """Accept a storage class whose objects can be read immediately, or an empty text."""
    if text and _WORD.fullmatch(text) is None:
        raise ValueError("should be the name of a storage class, such as STANDARD_IA")
    if text.upper() in _FROZEN:
        raise ValueError("cannot hold NARs: objects of that class must be restored before a read")
    return text


BUCKET = Kind(
    metavar="NAME", expected="the name of a bucket", parse=parse_bucket, quote=quote_nothing
)
ENDPOINT = Kind(
    metavar="URL", expected="a URL such as https://s3.example.com", parse=parse_endpoint
)
PREFIX = Kind(
    metavar="TEXT", expected="the beginning of keys", parse=parse_prefix, quote=quote_nothing
)
REGION = Kind(
    metavar="NAME", expected="the name of a region", parse=parse_region, quote=quote_nothing
)
STORAGE_CLASS = Kind(
    metavar="NAME",
    expected="the name of a storage class",
    parse=parse_storage_class,
    quote=quote_nothing,
)
