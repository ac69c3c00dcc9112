"""NAR archives: a push parser that checks the format and lists what is inside.

A NAR is a sequence of strings, each of them its length in eight little-endian bytes, its bytes,
and zero bytes up to a multiple of eight:

    nar       nix-archive-1 object
    object    ( type regular [executable ""] contents <bytes> )
              ( type symlink target <bytes> )
              ( type directory { entry ( name <bytes> node object ) } )

Each tree has exactly one NAR, so any other way to write it is an error (Nix 2.35, archive.cc). The
parser reads in long steps: it compares all fixed strings between two variable ones (a name, a
length, a target) in one operation. It skips contents by their length and never copies them. So
memory depends only on the number of entries, and not even on that if a `Builder` keeps no tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final, NoReturn, Protocol

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
        """Return the file as in a ``.ls`` file; fields that are false are omitted."""
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
        """Return the link as in a ``.ls`` file."""
        return {"type": "symlink", "target": self.target}


@frozen
class Directory:
    """A directory; names are text as `os.fsdecode` makes it, in the order of their bytes."""

    entries: Mapping[str, Node]

    def to_json(self) -> dict[str, Any]:
        """Return the directory and its contents as in a ``.ls`` file."""
        entries = {name: node.to_json() for name, node in self.entries.items()}
        return {"type": "directory", "entries": entries}


Node = Regular | Symlink | Directory


@frozen
class Listing:
    """The contents of a NAR, as a listing."""

    root: Node

    def to_json(self) -> dict[str, Any]:
        """Return the document that `nix copy` writes to ``<hash part>.ls`` (version 1)."""
        return {"version": 1, "root": self.root.to_json()}


class Builder(Protocol):
    """A receiver of the objects of a NAR, in their order.

    A name is relative to the innermost directory that was entered and not left; the root has an
    empty name.
    """

    def add(self, name: bytes, node: Regular | Symlink) -> None:
        """Receive a file or a link."""

    def enter(self, name: bytes) -> None:
        """Receive the beginning of a directory."""

    def leave(self) -> None:
        """Receive the end of a directory."""


class TreeBuilder(Builder):
    """A builder of a listing."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._above: list[dict[str, Node]] = []

    def add(self, name: bytes, node: Node) -> None:
        if not self._above:
            self.root = node
            return
        self._above[-1][name.decode("utf-8", "surrogateescape")] = node

    def enter(self, name: bytes) -> None:
        entries: dict[str, Node] = {}
        self.add(name, Directory(entries))
        self._above.append(entries)

    def leave(self) -> None:
        self._above.pop()


_LENGTH = Struct("<Q")
_ZEROS = bytes(8)
_DOT: Final = ord(".")


def _strings(*texts: bytes) -> bytes:
    return b"".join(
        _LENGTH.pack(len(text)) + text + _ZEROS[: -len(text) % 8 if text else 0] for text in texts
    )


MAGIC: Final = _strings(b"nix-archive-1")
"""The first bytes of every NAR."""
_REGULAR = _strings(b"(", b"type", b"regular", b"contents")
_EXECUTABLE = _strings(b"(", b"type", b"regular", b"executable", b"", b"contents")
_SYMLINK = _strings(b"(", b"type", b"symlink", b"target")
_DIRECTORY = _strings(b"(", b"type", b"directory")
_ENTRY = _strings(b"entry", b"(", b"name")
_NODE = _strings(b"node")
_CLOSE = _strings(b")")

# The bytes that follow a string with `index` bytes of padding, 0 to 7.
_TO_NODE = tuple(_ZEROS[:padding] + _NODE for padding in range(8))
_TO_END = tuple(_ZEROS[:padding] + _CLOSE for padding in range(8))
_TO_NEXT = tuple(_ZEROS[:padding] + _CLOSE + _CLOSE for padding in range(8))  # of a directory

FILE_HEAD: Final = MAGIC + _REGULAR
"""The head of the NAR of a single file that is not executable; then comes the size."""

_MORE: Final = -1  # result of a step that needs more bytes


def file_tail(size: int) -> bytes:
    """Return the last bytes of the NAR of a single file, after contents of this size."""
    return _TO_END[-size % 8]


class NarParser:
    """A parser of a NAR that is fed in pieces of any size.

    It limits the depth, the lengths of names and targets, and the number of entries.

    :param builder: receives each object; None to build a tree for `finish`.
    """

    def __init__(self, builder: Builder | None = None) -> None:
        self._tree = TreeBuilder()
        self._builder = builder or self._tree
        self._unread = b""  # the bytes so far of the next step: less than 5 kB
        self._offset = 0  # of `_unread` in the NAR
        self._contents = 0  # bytes of a file's contents that are still to be skipped
        self._step: Callable[[NarParser, bytes, int], int] = NarParser._read_magic
        self._tail = b""  # expected after the contents
        self._is_complete = False
        self._is_inside = False  # of a directory
        self._name = b""  # of the last entry there
        self._above: list[bytes] = []  # names of the last entries of the directories around it
        self._count = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Read the next bytes; they are not kept. Raises Corrupt if this is no NAR."""
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

    def end(self) -> None:
        """End the NAR. Raises Corrupt if it is not complete."""
        if not self._is_complete:
            raise Corrupt(f"bad NAR: it ends at byte {self._offset + len(self._unread)}, too early")

    def finish(self) -> Listing:
        """End the NAR, and return its listing. Raises Corrupt if it is not complete."""
        self.end()
        assert self._tree.root is not None, "a builder was given"
        return Listing(self._tree.root)

    def _read(self, data: bytes, position: int) -> int:
        """Make all steps for which there are enough bytes; return the position after them."""
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
        if data.startswith(MAGIC, position):
            self._step = NarParser._read_object
            return position + len(MAGIC)
        return self._wait(data, position, len(MAGIC), "this is no NAR")

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
        if self._is_inside and data.startswith(tail, start + size):
            self._step = NarParser._read_entry  # the usual case: a small file, wholly in `data`
            return start + size + len(tail)
        self._contents = size
        self._expect(_TO_NEXT if self._is_inside else _TO_END, size)
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
        self._expect(_TO_NEXT if self._is_inside else _TO_END, size)
        return stop

    def _expect(self, tails: tuple[bytes, ...], size: int) -> None:
        """Expect one of `tails` after a string of `size` bytes."""
        self._tail = tails[-size % 8]
        self._step = NarParser._read_tail

    def _read_tail(self, data: bytes, position: int) -> int:
        tail = self._tail
        if data.startswith(tail, position):
            self._step = NarParser._read_entry if self._is_inside else NarParser._read_end
            self._is_complete = not self._is_inside
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

    def _add(self, node: Regular | Symlink) -> None:
        self._count_one()
        self._builder.add(self._name, node)

    def _count_one(self) -> None:
        self._count += self._is_inside
        if self._count > MAX_ENTRIES:
            raise Corrupt(f"a NAR of more than {MAX_ENTRIES} entries")

    def _enter(self) -> None:
        self._count_one()
        self._builder.enter(self._name)
        if self._is_inside:
            if len(self._above) == MAX_DEPTH:
                raise Corrupt(f"a NAR of more than {MAX_DEPTH} levels")
            self._above.append(self._name)
        self._is_inside, self._name = True, b""
        self._step = NarParser._read_entry

    def _leave(self, data: bytes, position: int) -> int:
        tail = _TO_NEXT[0] if self._above else _TO_END[0]
        if not data.startswith(tail, position):
            return self._wait(data, position, len(_ENTRY), "an entry or the end of a directory")
        self._builder.leave()
        if self._above:
            self._name = self._above.pop()
        else:
            self._is_inside = False
            self._is_complete = True
            self._step = NarParser._read_end
        return position + len(tail)

    def _wait(self, data: bytes, position: int, size: int, complaint: str) -> int:
        """Return `_MORE` if fewer than `size` bytes have come; else raise Corrupt."""
        if len(data) - position >= size:
            self._fail(position, complaint)
        return _MORE

    def _fail(self, position: int, complaint: str) -> NoReturn:
        raise Corrupt(f"bad NAR at byte {self._offset + position}: {complaint}")
