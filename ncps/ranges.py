"""Byte ranges and entity tags (RFC 9110, sections 8.8.3, 13.1 and 14), as arithmetic.

A server may ignore any Range header. ncps ignores several ranges in one request, other units and
bad syntax. `parse` reads the one range without the size of the object, and `resolve` applies it
once the size is known:

    bytes=5-9   first=5, last=9
    bytes=5-    first=5, last=None
    bytes=-5    first=None, last=5     (the last five; their start depends on the size)
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from attrs import frozen

from ncps.errors import NcpsError

_MAX_HEADER: Final = 128  # bytes; one range needs no more
_MAX_DIGITS: Final = 19

_ETAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class Unsatisfiable(NcpsError):
    """The range is outside the object. Status: 416 with `content_range` as Content-Range.

    :param size: size of the whole object in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"range outside of an object of {size} bytes")
        self.size = size

    @property
    def content_range(self) -> bytes:
        """The value ``bytes */<size>``."""
        return b"bytes */%d" % self.size


@frozen
class ByteRange:
    """The bytes from `start` up to but not including `stop`; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.stop - self.start


@frozen
class RangeSpec:
    """One range as a client asks for it, in one of the three shapes above."""

    first: int | None
    last: int | None

    def resolve(self, size: int) -> ByteRange:
        """Return the part of the range inside an object of `size` bytes.

        Raises Unsatisfiable if it has no byte of the object.
        """
        if self.first is None:
            start, stop = max(0, size - (self.last or 0)), size
        else:
            start = self.first
            stop = size if self.last is None else min(size, self.last + 1)
        if start >= stop:
            raise Unsatisfiable(size)
        return ByteRange(start, stop)


def parse(header: bytes | None) -> RangeSpec | None:
    """Read a Range header; None if there is none or ncps ignores it, to send the whole object."""
    if header is None or len(header) > _MAX_HEADER:
        return None
    unit, equals, ranges = header.partition(b"=")
    if not equals or unit.strip(b" \t").lower() != b"bytes":
        return None
    wanted = [item for part in ranges.split(b",") if (item := part.strip(b" \t"))]
    if len(wanted) != 1:
        return None
    head, dash, tail = wanted[0].partition(b"-")
    if not dash or not (head or tail) or not _is_number(head) or not _is_number(tail):
        return None
    first, last = int(head) if head else None, int(tail) if tail else None
    if first is not None and last is not None and first > last:
        return None
    return RangeSpec(first, last)


def content_range(wanted: ByteRange, size: int | None) -> bytes:
    """Write the Content-Range of a 206; an unknown size is written as ``*``."""
    total = b"*" if size is None else b"%d" % size
    return b"bytes %d-%d/%b" % (wanted.start, wanted.stop - 1, total)


def if_range_matches(header: bytes | None, etag: bytes) -> bool:
    """Whether the Range header applies: there is no If-Range, or it names our tag.

    Only a strong tag equal to ours matches: a date does not identify bytes (RFC 9110, 13.1.5).

    :param etag: our tag, strong, with its quotes.
    """
    return header is None or header.strip(b" \t") == etag


def entity_tag(text: bytes) -> bytes:
    """Make a strong entity tag from a text: the same for the same text, in every process."""
    return b'"%b"' % blake2b(text, digest_size=16).hexdigest().encode()


def if_none_match(header: bytes | None, etag: bytes) -> bool:
    """Whether If-None-Match names our tag, so that the answer is 304.

    The comparison is weak, and ``*`` names every tag (RFC 9110, 13.1.2).

    :param etag: our tag, strong, with its quotes.
    """
    if header is None:
        return False
    return header.strip(b" \t") == b"*" or etag in _ETAG.findall(header)


def _is_number(text: bytes) -> bool:
    """Whether `text` is a position in the object, or empty."""
    return not text or (text.isdigit() and len(text) <= _MAX_DIGITS)
