"""Hearsay: what a row says of a NAR on the word of an upstream that is not ours.

Replicas that share a catalog may have other upstreams each. What one of them believed of a file
binds no other: NarHash is signed, the rest is found out anew.
"""

from __future__ import annotations

from attrs import evolve

from ncps.ask.choose import Upstreams
from ncps.codec import is_supported
from ncps.ports import NarRecord


def is_hearsay(nar: NarRecord, upstreams: Upstreams) -> bool:
    """Whether stored bytes were never looked into, and came from an upstream that is not ours."""
    return nar.verified_at is None and not _is_ours(nar, upstreams)


def own_view(nar: NarRecord, upstreams: Upstreams) -> NarRecord:
    """What is known of a NAR without the unsigned word of an upstream that is not ours."""
    if nar.was_stored or _is_ours(nar, upstreams):
        return nar
    return evolve(nar, file_size=None, file_hash=None, upstream="", origin_url="")


def _is_ours(nar: NarRecord, upstreams: Upstreams) -> bool:
    """Whether the row rests on an upstream of ours, or on nothing that could be found out anew."""
    is_checkable = nar.nar_hash is not None and is_supported(nar.encoding or nar.compression)
    return not (is_checkable and nar.upstream) or bool(upstreams.name_of(nar.upstream))
