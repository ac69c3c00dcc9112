"""Kinds of values that S3 has, and what is decided about the storage once all settings are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ncps.settings.network import parse_upstream
from ncps.settings.setting import Kind
from ncps.settings.showing import quote_nothing

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_FROZEN: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_AT: Final = "cache.storage.s3."
_NEEDED_TOGETHER: Final = ("access_key_id", "secret_access_key")


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
    endpoint = parse_upstream(text)
    if endpoint.user is not None or "?" in text:
        raise ValueError("should hold neither credentials nor parameters")
    return endpoint.url


def parse_prefix(text: str) -> str:
    """Accept what shall stand before every key; slashes around it do not count."""
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


def decide_storage(
    values: dict[str, object], origins: Mapping[str, str], problems: list[str], state_dir: Path
) -> None:
    """Choose between directory and bucket, and find a place for unfinished downloads.

    :param values: by attribute; changed in place. What could not be parsed is missing.
    :param origins: by key, where each value came from.
    """

    def is_given(key: str) -> bool:
        return origins.get(key, "default") != "default"

    if f"{_AT}bucket" not in values:
        return  # not parsed: that is told already
    if not values[f"{_AT}bucket"]:
        if values.get("cache.storage.local", "") is None:
            problems.append("cache-storage-local should be a path, unless there is a bucket")
        for key in origins:
            if key.startswith(_AT) and is_given(key) and _says_something(values, key):
                flag = key.replace(".", "-")
                problems.append(f"{flag} needs cache-storage-s3-bucket: which bucket is meant?")
                break
        return
    if is_given("cache.storage.local") and values.get("cache.storage.local") is not None:
        problems.append(
            "cache-storage-local and cache-storage-s3-bucket: give one of them. NARs are kept"
            " either in a directory or in a bucket (unfinished ones in cache-temp-path)"
        )
    values["cache.storage.local"] = None
    if values.get("cache.temp_path", "") is None:
        values["cache.temp_path"] = state_dir / "spool"
    given = [name for name in _NEEDED_TOGETHER if values.get(_AT + name, "unknown")]
    if len(given) == 1:
        problems.append(
            "cache-storage-s3-access-key-id and cache-storage-s3-secret-access-key: give both, or"
            " neither to use what AWS's own tools would (environment, profile, role)"
        )
    if values.get(f"{_AT}session_token") and not given:
        problems.append("cache-storage-s3-session-token needs cache-storage-s3-access-key-id")
    encryption = str(values.get(f"{_AT}server_side_encryption"))
    if values.get(f"{_AT}kms_key_id") and not encryption.startswith("aws:kms"):
        problems.append(
            "cache-storage-s3-kms-key-id needs cache-storage-s3-server-side-encryption=aws:kms"
        )


def _says_something(values: Mapping[str, object], key: str) -> bool:
    """Whether a value is more than the absence of one: a template may leave all keys empty."""
    return values.get(key.replace("-", "_")) not in {None, "", False}
