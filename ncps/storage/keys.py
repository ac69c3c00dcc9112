"""Object keys: the places of objects in a store, the same in a local directory and in a bucket.

    store/nar/<h>/<hh>/<name>.nar[.<extension>]         NARs
    store/narinfo/<h>/<hh>/<hash part>.narinfo          narinfos as verified, beside their NARs
    store/extra/<kind>/<h>/<hh>/<name>                  logs, listings and debug links: see `extras`
    store/realisation/<h>/<hh>/<digest>.doi             uploaded realisations
    store/quarantine/<file name>.<mark>                 wrong NAR files, for an operator
    store/tmp/                                          unfinished files; local directories only
    store/probe/<name>                                  test objects; buckets only
    config/<name>                                       the signing key and a few small secrets

`<h>` and `<hh>` are the first one and two characters of the name, as in the layout of the Go
program (v0.9). `<mark>` is the time in microseconds since 1970 and, after a dash, a random number,
which distinguishes NARs of the same moment. Each text is checked before it becomes part of a key,
so that no key leads outside the store.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import is_digest
from ncps.ports import ExtraKey, ExtraKind

NARS = "store/nar"
NARINFOS = "store/narinfo"
EXTRAS = "store/extra"
REALISATIONS = "store/realisation"
QUARANTINE = "store/quarantine"
TEMPS = "store/tmp"
PROBES = "store/probe"
CONFIG = "config"
DIRECTORIES = (NARS, NARINFOS, REALISATIONS, QUARANTINE, TEMPS, CONFIG)
"""The bases of all keys of a local directory."""

_NARINFO_END = ".narinfo"
_REALISATION_END = ".doi"
_REALISATION = re.compile(f"[{ALPHABET}]{{52}}")
_MARK = re.compile(r"(0|[1-9][0-9]{0,16})(?:-[0-9a-f]{16})?", re.ASCII)
"""Marks of earlier versions have no random number."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONFIG_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?=[a-z0-9])){0,63}")


def _shards(name: str) -> str:
    return f"{name[0]}/{name[:2]}"


def file_name(key: str) -> str:
    """Return the last part of a key."""
    return key.rpartition("/")[2]


def is_sharded(key: str) -> bool:
    """Return whether objects at or below this key lie in shard directories."""
    return key.startswith((NARS, NARINFOS, REALISATIONS, EXTRAS))


def nar_key(key: NarKey) -> str:
    """Return the key of a NAR."""
    return f"{NARS}/{_shards(key.name)}/{key.file_name}"


def narinfo_key(digest: str) -> str:
    """Return the key of a store path's narinfo. Raises Malformed if `digest` is invalid.

    :param digest: hash part of the store path, 32 characters.
    """
    if not is_digest(digest):
        raise Malformed(f"not the hash part of a store path: {digest[:64]!r}")
    return f"{NARINFOS}/{_shards(digest)}/{digest}{_NARINFO_END}"


def extras(kind: ExtraKind, *, is_uploaded: bool) -> str:
    """Return the base of the extras of one kind; uploaded ones have another base."""
    return f"{EXTRAS}/{kind}-uploaded" if is_uploaded else f"{EXTRAS}/{kind}"


def extra_key(key: ExtraKey) -> str:
    """Return the key of an extra."""
    base = extras(key.kind, is_uploaded=key.is_uploaded)
    return f"{base}/{_shards(key.name)}/{key.name}"


def realisation_key(digest: str) -> str:
    """Return the key of a realisation. Raises Malformed if `digest` is invalid.

    :param digest: see `RealisationKey.digest`.
    """
    if _REALISATION.fullmatch(digest) is None:
        raise Malformed(f"not the digest of a realisation: {digest[:64]!r}")
    return f"{REALISATIONS}/{_shards(digest)}/{digest}{_REALISATION_END}"


def config_key(name: str) -> str:
    """Return the key of a secret. Raises Malformed if no secret can have that name."""
    if _CONFIG_NAME.fullmatch(name) is None:
        raise Malformed(f"not the name of a secret: {name[:64]!r}")
    return f"{CONFIG}/{name}"


def new_mark(now: float) -> str:
    """Return a mark that no other object has.

    :param now: seconds since 1970.
    """
    return f"{int(now * 1e6)}-{secrets.token_hex(8)}"


def quarantine_key(key: NarKey, mark: str) -> str:
    """Return the key of a NAR in the quarantine. Raises Malformed if `mark` is invalid.

    :param mark: see `new_mark`.
    """
    if _MARK.fullmatch(mark) is None:
        raise Malformed(f"not the mark of what was set aside: {mark[:64]!r}")
    return f"{QUARANTINE}/{key.file_name}.{mark}"


def probe_key(name: str) -> str:
    """Return the key of a probe: an object that is written and removed again.

    :param name: letters and digits; no other probe has them.
    """
    return f"{PROBES}/{name}"


def nar_of(object_key: str) -> NarKey | None:
    """Return the NAR of a key that `nar_key` made; None for every other key."""
    try:
        key = NarKey.parse(file_name(object_key))
    except Malformed:
        return None
    return key if nar_key(key) == object_key else None


def extra_of(object_key: str, kind: ExtraKind, *, is_uploaded: bool) -> ExtraKey | None:
    """Return the extra of a key that `extra_key` made; None for other keys and other kinds."""
    try:
        key = ExtraKey(kind, file_name(object_key), is_uploaded)
    except Malformed:
        return None
    return key if extra_key(key) == object_key else None


def set_aside_of(object_key: str) -> tuple[NarKey, str, datetime] | None:
    """Return NAR, mark and time of a key that `quarantine_key` made; None for other keys."""
    name, _, mark = file_name(object_key).rpartition(".")
    found = _MARK.fullmatch(mark)
    try:
        key = NarKey.parse(name)
    except Malformed:
        return None
    if found is None or quarantine_key(key, mark) != object_key:
        return None
    return key, mark, _EPOCH + timedelta(microseconds=int(found[1]))


def digest_of(object_key: str) -> str | None:
    """Return the digest of a key that `narinfo_key` made; None for every other key."""
    digest = file_name(object_key).removesuffix(_NARINFO_END)
    return digest if is_digest(digest) and narinfo_key(digest) == object_key else None


def realisation_of(object_key: str) -> str | None:
    """Return the digest of a key that `realisation_key` made; None for every other key."""
    digest = file_name(object_key).removesuffix(_REALISATION_END)
    if _REALISATION.fullmatch(digest) is None or realisation_key(digest) != object_key:
        return None
    return digest
