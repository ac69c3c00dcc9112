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
"""Names that boto3 accepts: no underscores, which names of containers have."""
_EXAMPLE: Final = "https://s3.example.com"
_FROZEN: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def parse_bucket(text: str) -> str:
    """Accept the name of a bucket, as every server does, or nothing."""
    if text and (_BUCKET.fullmatch(text) is None or ".." in text):
        raise ValueError(
            "should be the bare name of a bucket: 3 to 63 small letters, digits, dots and hyphens"
        )
    return text


def parse_endpoint(text: str) -> str:
    """Accept the URL of a server, or nothing."""
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
    """Accept the text before every key; slashes around it do not count."""
    prefix = text.strip("/")
    if not prefix:
        return ""
    if len(prefix) > 512 or _PREFIX.fullmatch(prefix) is None:
        raise ValueError("should be like caches/nix: letters, digits and !_.*'()- between slashes")
    if {".", ".."} & set(prefix.split("/")):
        raise ValueError("should have no . or .. between its slashes")
    return prefix


def parse_region(text: str) -> str:
    """Accept the name of a region, or nothing."""
    if text and _WORD.fullmatch(text) is None:
        raise ValueError("should be the name of a region, such as eu-central-1")
    return text


def parse_storage_class(text: str) -> str:
    """Accept a class of storage that can be read at once, or nothing."""
    if text and _WORD.fullmatch(text) is None:
        raise ValueError("should be the name of a storage class, such as STANDARD_IA")
    if text.upper() in _FROZEN:
        raise ValueError("cannot be served from: objects of that class have to be restored first")
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
