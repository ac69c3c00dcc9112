"""Content checks: whether a NAR has the contents that a content address names.

The NAR is fed in pieces and not kept. Nix computes the hash of contents in three ways:

    text:, fixed:           the contents of the one file in the NAR
    fixed:r:                the NAR
    fixed:r: of a path      the NAR with the path's own hash part replaced by zero bytes; Nix 2.8
    that refers to itself   adds the offsets of the replaced parts, Nix 2.26 does not

The hash of a file's contents does not cover its executable bit, so an executable file is refused.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection
from struct import Struct
from typing import Any, Final, Protocol

from ncps.errors import Corrupt
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.hashes import Hash
from ncps.nix.nar import FILE_HEAD, file_tail
from ncps.nix.storepath import StorePath

MAX_PLACES: Final = 1_000_000
"""How many times a path may refer to itself; each time costs 8 bytes of memory."""

_SIZE = Struct("<Q")
_HEAD = len(FILE_HEAD) + _SIZE.size


class _Reader(Protocol):
    """A hash function for NARs; `finish` returns the hashes that the contents may have."""

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> Collection[Hash]: ...


class ContentCheck:
    """A comparison of the NAR of one store path with its content address.

    :param references: of the path, with the path itself if it refers to itself.
    """

    def __init__(
        self, address: ContentAddress, path: StorePath, references: Collection[StorePath]
    ) -> None:
        algorithm = address.hash.algorithm
        self._expected = address.hash
        self._reader: _Reader
        if address.method != "nar":
            self._reader = _File(algorithm)
        elif path in references:
            self._reader = _WithoutItself(algorithm, path)
        else:
            self._reader = _Whole(algorithm)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the NAR. Raises Corrupt if the NAR is of the wrong kind."""
        self._reader.feed(data)

    def finish(self) -> None:
        """Raise Corrupt if the contents have another hash than the content address says."""
        hashes = self._reader.finish()
        if self._expected not in hashes:
            text = " or ".join(str(found) for found in hashes)
            raise Corrupt(f"the contents have the hash {text}, their CA says {self._expected}")


def _new(algorithm: str) -> Any:
    return hashlib.new(algorithm, usedforsecurity=False)


class _Whole(_Reader):
    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = _new(algorithm)

    def feed(self, data: bytes) -> None:
        self._hash.update(data)

    def finish(self) -> Collection[Hash]:
        return (Hash(self._algorithm, self._hash.digest()),)


class _File(_Reader):
    """The hash of the contents of a file; each file has exactly one NAR."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = _new(algorithm)
        self._head = b""
        self._left = 0  # bytes of the contents still to come
        self._expected = b""  # after the contents
        self._tail = b""

    def feed(self, data: bytes) -> None:
        if not self._expected:
            missing = _HEAD - len(self._head)
            self._head += data[:missing]
            if len(self._head) < _HEAD:
                return
            self._open()
            data = data[missing:]
        contents = data[: self._left]
        self._hash.update(contents)
        self._left -= len(contents)
        self._tail += data[len(contents) :]
        if not self._expected.startswith(self._tail):
            raise Corrupt("the NAR of a file does not end with the file")

    def _open(self) -> None:
        if not self._head.startswith(FILE_HEAD):
            raise Corrupt(
                "its CA is that of a file that is not executable; its NAR holds something else"
            )
        (self._left,) = _SIZE.unpack_from(self._head, len(FILE_HEAD))
        self._expected = file_tail(self._left)

    def finish(self) -> Collection[Hash]:
        if not self._expected or self._tail != self._expected:
            raise Corrupt("the NAR of a file ends too early")
        return (Hash(self._algorithm, self._hash.digest()),)


class _WithoutItself(_Reader):
    """The hash of a NAR in which zero bytes replace the hash part of its own path."""

    def __init__(self, algorithm: str, path: StorePath) -> None:
        self._algorithm = algorithm
        self._hash = _new(algorithm)
        self._itself = path.digest.encode("ascii")
        self._zeros = bytes(len(self._itself))
        self._rest = b""  # may be the beginning of the hash part
        self._offset = 0  # of `_rest` in the NAR
        self._places = array("Q")

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        at = data.find(self._itself)
        while at >= 0:
            self._places.append(self._offset + at)
            at = data.find(self._itself, at + len(self._itself))
        if len(self._places) > MAX_PLACES:
            raise Corrupt(f"the path refers to itself more than {MAX_PLACES} times")
        data = data.replace(self._itself, self._zeros)
        done = max(0, len(data) - len(self._itself) + 1)
        self._hash.update(data[:done])
        self._rest = data[done:]
        self._offset += done

    def finish(self) -> Collection[Hash]:
        self._hash.update(self._rest)
        plain = Hash(self._algorithm, self._hash.digest())
        self._hash.update("".join(f"|{place}" for place in self._places).encode("ascii"))
        return plain, Hash(self._algorithm, self._hash.digest())
