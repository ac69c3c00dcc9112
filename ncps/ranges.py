"""Byte ranges and entity tags (RFC 9110, sections 8.8.3, 13.1 and 14), as arithmetic.

A server may ignore any Range header, and ours ignores several ranges in one request, other units
and bad syntax. So one range is left. `parse` reads it without knowing how long the object is;
it is resolved when the size is known:

    bytes=5-9   first=5, last=9
    bytes=5-    first=5, last=None
    bytes=-5    first=None, last=5     (the last five; only the size tells where they start)
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
    """The range lies outside the object. Clients: 416 with `content_range` as Content-Range.

    :param size: of the whole object in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"range outside of an object of {size} bytes")
        self.size = size

    @property
    def content_range(self) -> bytes:
        """``bytes */<size>``."""
        return b"bytes */%d" % self.size


@frozen
class ByteRange:
    """Bytes `start` up to `stop`, without `stop`; never empty."""

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
        """Lay the range over an object of `size` bytes; what goes beyond its end is cut off.

        Raises Unsatisfiable if no byte of it is there.
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
    """Read a Range header; None: there is none, or none that is obeyed. Send the whole then."""
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
    """Whether If-Range lets the Range header count; it does where there is no If-Range.

    Only a strong tag equal to ours matches: dates say too little of bytes (RFC 9110, 13.1.5).

    :param etag: ours, strong, with its quotes.
    """
    return header is None or header.strip(b" \t") == etag


def entity_tag(text: bytes) -> bytes:
    """Make a strong entity tag of a text: the same for the same text, in every process."""
    return b'"%b"' % blake2b(text, digest_size=16).hexdigest().encode()


def if_none_match(header: bytes | None, etag: bytes) -> bool:
    """Whether If-None-Match names our tag, so that 304 is the answer.

    The comparison is weak, and ``*`` names every tag (RFC 9110, 13.1.2).

    :param etag: ours, strong, with its quotes.
    """
    if header is None:
        return False
    return header.strip(b" \t") == b"*" or etag in _ETAG.findall(header)


def _is_number(text: bytes) -> bool:
    """Whether `text` is a position in a file, or empty."""
    return not text or (text.isdigit() and len(text) <= _MAX_DIGITS)
