"""Listings: the files of a NAR as JSON, as Nix writes them to `<hash part>.ls` (version 1).

A listing is written while the NAR is read, so memory holds its text and no tree of objects. The
text is byte for byte that of Nix 2.26: the keys of each object are in alphabetical order, and there
are no blanks. A NAR has its names in the order of their bytes, which is the order of keys.
"""

from __future__ import annotations

import json
import re

from ncps.errors import Malformed, NotFound
from ncps.nix.nar import Builder, Regular, Symlink

_HEAD = re.compile(rb'\s*\{\s*"(?:version"\s*:\s*1\s*,\s*"root|root)"\s*:\s*\{')
_TAIL = re.compile(rb'\}\s*(?:,\s*"version"\s*:\s*1\s*)?\}\s*\Z')
_TAIL_SIZE = 200

_BEGIN = b'{"root":'
_END = b',"version":1}'
_DIRECTORY = b'{"entries":{'
_END_OF_DIRECTORY = b'},"type":"directory"}'


class TooLong(NotFound):
    """The listing of a NAR would be longer than the limit."""

    def __init__(self, max_size: int) -> None:
        super().__init__(f"the listing is longer than {max_size} bytes", is_certain=False)


class ListingWriter(Builder):
    """A builder that writes the listing of one NAR.

    :param max_size: bytes of the text, at most; raises TooLong beyond.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._text = bytearray(_BEGIN)
        self._is_first = True  # in its directory, or the root

    def add(self, name: bytes, node: Regular | Symlink) -> None:
        """See `Builder`."""
        self._begin(name)
        if isinstance(node, Symlink):
            self._text += b'{"target":%b,"type":"symlink"}' % _quoted(node.target)
        else:
            executable = b'"executable":true,' if node.executable else b""
            self._text += b'{%b"narOffset":%d,"size":%d,"type":"regular"}' % (
                executable,
                node.offset,
                node.size,
            )
        self._is_first = False
        self._check()

    def enter(self, name: bytes) -> None:
        """See `Builder`."""
        self._begin(name)
        self._text += _DIRECTORY
        self._is_first = True
        self._check()

    def leave(self) -> None:
        """See `Builder`."""
        self._text += _END_OF_DIRECTORY
        self._is_first = False

    def _begin(self, name: bytes) -> None:
        if not name:
            return
        if not self._is_first:
            self._text += b","
        self._text += _quoted(name.decode("utf-8", "surrogateescape"))
        self._text += b":"

    def _check(self) -> None:
        if len(self._text) > self._max_size:
            raise TooLong(self._max_size)

    def text(self) -> bytes:
        """Return the listing; to be called once, after the NAR has ended."""
        self._text += _END
        return bytes(self._text)


def _quoted(text: str) -> bytes:
    """Return a text as JSON; bytes that are not UTF-8 become question marks."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")


class Several(Builder):
    """A builder that calls several builders."""

    def __init__(self, *builders: Builder) -> None:
        self._builders = builders

    def add(self, name: bytes, node: Regular | Symlink) -> None:
        """See `Builder`."""
        for builder in self._builders:
            builder.add(name, node)

    def enter(self, name: bytes) -> None:
        """See `Builder`."""
        for builder in self._builders:
            builder.enter(name)

    def leave(self) -> None:
        """See `Builder`."""
        for builder in self._builders:
            builder.leave()


def check_listing(text: bytes) -> None:
    """Raise Malformed if a text does not begin and end as a listing.

    It is not parsed: a listing of 16 MiB would take about 200 MiB of memory.
    """
    if _HEAD.match(text) is None or _TAIL.search(text[-_TAIL_SIZE:]) is None:
        raise Malformed("not a listing of version 1")
