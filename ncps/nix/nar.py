"""NAR archives: a push parser that checks the format and lists what is inside.

A NAR is a sequence of strings, each of them its length in eight little-endian bytes, its bytes,
and zero bytes up to a multiple of eight:

    nar       nix-archive-1 object
    object    ( type regular [executable ""] contents <bytes> )
              ( type symlink target <bytes> )
              ( type directory { entry ( name <bytes> node object ) } )

There is exactly one NAR for a tree, so that whatever could be written in two ways is an error
(Nix 2.35, archive.cc). The parser goes through the text in long strides: between two things that
vary (a name, a length, a target) all strings are fixed and compared in one go. Contents are
stepped over by their length and never copied, so that memory depends on the number of entries only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final, NoReturn

from attrs import frozen

from ncps.errors import Corrupt

MAX_DEPTH: Final = 64
MAX_NAME: Final = 255
MAX_TARGET: Final = 4095
MAX_CONTENTS: Final = 2**63 - 1
MAX_ENTRIES: Final = 1_000_000


@frozen
class Regular:
    """A file.

    :param size: of the contents in bytes.
    :param offset: where in the NAR the contents begin.
    """

    size: int
    executable: bool
    offset: int

    def to_json(self) -> dict[str, Any]:
        """Return it as in a ``.ls`` file: what is false or unknown is left out."""
        facts: dict[str, Any] = {"type": "regular", "size": self.size}
        if self.executable:
            facts["executable"] = True
        facts["narOffset"] = self.offset
        return facts


@frozen
class Symlink:
    """A symbolic link; the target is text as `os.fsdecode` makes it."""

    target: str

    def to_json(self) -> dict[str, Any]:
        """Return it as in a ``.ls`` file."""
        return {"type": "symlink", "target": self.target}


@frozen
class Directory:
    """A directory; names are text as `os.fsdecode` makes it, in the order of their bytes."""

    entries: Mapping[str, Node]

    def to_json(self) -> dict[str, Any]:
        """Return it and all that is in it as in a ``.ls`` file."""
        entries = {name: node.to_json() for name, node in self.entries.items()}
        return {"type": "directory", "entries": entries}


Node = Regular | Symlink | Directory


@frozen
class Listing:
    """What is inside a NAR."""

    root: Node

    def to_json(self) -> dict[str, Any]:
        """Return the document that `nix copy` writes to ``<hash part>.ls`` (version 1)."""
        return {"version": 1, "root": self.root.to_json()}


_LENGTH = Struct("<Q")
_ZEROS = bytes(8)
_DOT: Final = ord(".")


def _strings(*texts: bytes) -> bytes:
    return b"".join(
        _LENGTH.pack(len(text)) + text + _ZEROS[: -len(text) % 8 if text else 0] for text in texts
    )


_MAGIC = _strings(b"nix-archive-1")
_REGULAR = _strings(b"(", b"type", b"regular", b"contents")
_EXECUTABLE = _strings(b"(", b"type", b"regular", b"executable", b"", b"contents")
_SYMLINK = _strings(b"(", b"type", b"symlink", b"target")
_DIRECTORY = _strings(b"(", b"type", b"directory")
_ENTRY = _strings(b"entry", b"(", b"name")
_NODE = _strings(b"node")
_CLOSE = _strings(b")")

# What follows a string whose length leaves so many bytes to pad, index 0 to 7.
_TO_NODE = tuple(_ZEROS[:padding] + _NODE for padding in range(8))
_TO_END = tuple(_ZEROS[:padding] + _CLOSE for padding in range(8))
_TO_NEXT = tuple(_ZEROS[:padding] + _CLOSE + _CLOSE for padding in range(8))  # of a directory

FILE_HEAD: Final = _MAGIC + _REGULAR
"""How the NAR of a single file begins that is not executable; then comes the size."""

_MORE: Final = -1  # answer of a step: the next thing has not wholly arrived


def file_tail(size: int) -> bytes:
    """Return how the NAR of a single file ends, after contents of this size."""
    return _TO_END[-size % 8]


class NarParser:
    """Takes a NAR in pieces of any size. Corrupt, as soon as it is seen not to be one.

    Bounded are the depth, the lengths of names and targets, and the number of entries.
    """

    def __init__(self) -> None:
        self._unread = b""  # the beginning of what has not wholly arrived: less than 5 kB
        self._offset = 0  # of `_unread` in the NAR
        self._contents = 0  # bytes of a file's contents still to be stepped over
        self._step: Callable[[NarParser, bytes, int], int] = NarParser._read_magic
        self._tail = b""  # expected after the contents
        self._root: Node | None = None
        self._is_complete = False
        self._entries: dict[str, Node] | None = None  # of the directory we are in
        self._name = b""  # of the last entry there
        self._above: list[tuple[dict[str, Node], bytes]] = []  # the same of those around it
        self._count = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Read on. The data is not kept. Corrupt."""
        contents = self._contents
        if contents >= len(data):
            self._contents -= len(data)
            self._offset += len(data)
            return
        if self._unread:
            data = self._unread + data
        elif not isinstance(data, bytes):
            data = bytes(data[contents:])
            self._offset += contents
            self._contents = 0
        position = self._read(data, 0)
        self._unread = data[position:]
        self._offset += position

    def finish(self) -> Listing:
        """Return the listing of a NAR that has come to its end. Corrupt, if it has not."""
        if self._root is None or not self._is_complete:
            raise Corrupt(f"bad NAR: it ends at byte {self._offset + len(self._unread)}, too early")
        return Listing(self._root)

    def _read(self, data: bytes, position: int) -> int:
        """Take all steps that `data` is enough for; return where it is read up to."""
        size = len(data)
        while True:
            contents = self._contents
            if contents:
                if contents >= size - position:
                    self._contents -= size - position
                    return size
                position += contents
                self._contents = 0
            after = self._step(self, data, position)
            if after == _MORE:
                return position
            position = after

    def _read_magic(self, data: bytes, position: int) -> int:
        if data.startswith(_MAGIC, position):
            self._step = NarParser._read_object
            return position + len(_MAGIC)
        return self._wait(data, position, len(_MAGIC), "this is no NAR")

    def _read_object(self, data: bytes, position: int) -> int:
        if data.startswith(_REGULAR, position):
            return self._read_regular(data, position + len(_REGULAR), executable=False)
        if data.startswith(_DIRECTORY, position):
            self._enter()
            return position + len(_DIRECTORY)
        if data.startswith(_SYMLINK, position):
            return self._read_symlink(data, position + len(_SYMLINK))
        if data.startswith(_EXECUTABLE, position):
            return self._read_regular(data, position + len(_EXECUTABLE), executable=True)
        return self._wait(data, position, len(_EXECUTABLE), "an object was expected")

    def _read_regular(self, data: bytes, position: int, *, executable: bool) -> int:
        start = position + 8
        if len(data) < start:
            return _MORE
        size: int = _LENGTH.unpack_from(data, position)[0]
        if size > MAX_CONTENTS:
            self._fail(position, f"a file of {size} bytes")
        self._add(Regular(size, executable, self._offset + start))
        tail = _TO_NEXT[-size % 8]
        if self._entries is not None and data.startswith(tail, start + size):
            self._step = NarParser._read_entry  # a small file, all there: the usual case
            return start + size + len(tail)
        self._contents = size
        self._expect(_TO_END if self._entries is None else _TO_NEXT, size)
        return start

    def _read_symlink(self, data: bytes, position: int) -> int:
        start = position + 8
        if len(data) < start:
            return _MORE
        size: int = _LENGTH.unpack_from(data, position)[0]
        if not 0 < size <= MAX_TARGET:
            self._fail(position, f"the target of a link has {size} bytes")
        stop = start + size
        if len(data) < stop:
            return _MORE
        target = data[start:stop]
        if b"\0" in target:
            self._fail(start, "the target of a link has a NUL in it")
        self._add(Symlink(target.decode("utf-8", "surrogateescape")))
        self._expect(_TO_END if self._entries is None else _TO_NEXT, size)
        return stop

    def _expect(self, tails: tuple[bytes, ...], size: int) -> None:
        """Go on with what follows a string of `size` bytes."""
        self._tail = tails[-size % 8]
        self._step = NarParser._read_tail

    def _read_tail(self, data: bytes, position: int) -> int:
        tail = self._tail
        if data.startswith(tail, position):
            self._step = NarParser._read_end if self._entries is None else NarParser._read_entry
            self._is_complete = self._entries is None
            return position + len(tail)
        return self._wait(data, position, len(tail), "padding and a closing parenthesis are due")

    def _read_entry(self, data: bytes, position: int) -> int:
        if not data.startswith(_ENTRY, position):
            return self._leave(data, position)
        start = position + len(_ENTRY) + 8
        if len(data) < start:
            return _MORE
        size: int = _LENGTH.unpack_from(data, start - 8)[0]
        if not 0 < size <= MAX_NAME:
            self._fail(position, f"a name has {size} bytes")
        stop = start + size
        tail = _TO_NODE[-size % 8]
        if not data.startswith(tail, stop):
            return self._wait(data, stop, len(tail), "padding and a node are due")
        name = data[start:stop]
        if b"/" in name or b"\0" in name or (name[0] == _DOT and name in (b".", b"..")):
            self._fail(start, f"{name!r} is no name")
        if name <= self._name:
            self._fail(start, f"{name!r} comes after {self._name!r}, out of order")
        self._name = name
        self._step = NarParser._read_object
        return stop + len(tail)

    def _read_end(self, data: bytes, position: int) -> int:
        if position < len(data):
            self._fail(position, "something follows the end")
        return _MORE

    def _add(self, node: Node) -> None:
        if self._entries is None:
            self._root = node
            return
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise Corrupt(f"a NAR of more than {MAX_ENTRIES} entries")
        self._entries[self._name.decode("utf-8", "surrogateescape")] = node

    def _enter(self) -> None:
        entries: dict[str, Node] = {}
        self._add(Directory(entries))
        if self._entries is not None:
            if len(self._above) == MAX_DEPTH:
                raise Corrupt(f"a NAR of more than {MAX_DEPTH} levels")
            self._above.append((self._entries, self._name))
        self._entries, self._name = entries, b""
        self._step = NarParser._read_entry

    def _leave(self, data: bytes, position: int) -> int:
        tail = _TO_NEXT[0] if self._above else _TO_END[0]
        if not data.startswith(tail, position):
            return self._wait(data, position, len(_ENTRY), "an entry or the end of a directory")
        if self._above:
            self._entries, self._name = self._above.pop()
        else:
            self._entries = None
            self._is_complete = True
            self._step = NarParser._read_end
        return position + len(tail)

    def _wait(self, data: bytes, position: int, size: int, complaint: str) -> int:
        """Ask for more if `size` bytes have not come; else they are wrong."""
        if len(data) - position >= size:
            self._fail(position, complaint)
        return _MORE

    def _fail(self, position: int, complaint: str) -> NoReturn:
        raise Corrupt(f"bad NAR at byte {self._offset + position}: {complaint}")
