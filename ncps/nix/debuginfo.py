"""Debug information: the NAR that has the symbols of a program, by the program's build ID.

A linker writes the build ID into a program and into the file with its symbols. Nixpkgs puts that
file under `lib/debug/.build-id/` of a separate store path. Nix (`index-debug-info=true`) writes for
each such file the object `debuginfo/<build ID>.debug`, which names the NAR and the file in it.
Hydra writes the same object without `.debug` in its name.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Self

from attrs import frozen

from ncps.errors import Corrupt, Malformed, NotFound
from ncps.nix.nar import Builder, Directory, Listing, NarParser, Node, Regular, Symlink

MAX_SIZE: Final = 4096
"""Bytes of a link, at most."""

MAX_BEFORE: Final = 2_000
"""Other files and directories that a search reads, at most: each costs some microseconds."""

MAX_FOUND: Final = 10_000
"""Files with symbols that a search returns for one NAR, at most."""

_BUILD_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
_FOLDER: Final = "lib/debug/.build-id"
_MEMBER = re.compile(rb"lib/debug/\.build-id/([0-9a-f]{2})/([0-9a-f]{38})\.debug")
_PATH = re.compile(r"[^\0]{1,4096}")


def is_build_id(text: str) -> bool:
    """Return whether a text is a build ID of 20 bytes, in hexadecimal digits."""
    return _BUILD_ID.fullmatch(text) is not None


def member_of(build_id: str) -> str:
    """Return the path in a NAR of the file with the symbols of a build ID."""
    return f"{_FOLDER}/{build_id[:2]}/{build_id[2:]}.debug"


def _is_text(text: str) -> bool:
    """Return whether a text has no half of a UTF-16 pair, which JSON can contain."""
    return not any("\ud800" <= digit <= "\udfff" for digit in text)


@frozen
class DebugLink:
    """A link to the symbols of one build ID.

    :param archive: URL of the NAR, relative to `debuginfo/`.
    :param member: path in the NAR.
    """

    archive: str
    member: str

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the JSON of a link. Raises Malformed if it is something else."""
        if len(text) > MAX_SIZE:
            raise Malformed(f"a link to debug information has at most {MAX_SIZE} bytes")
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise Malformed("not a link to debug information: it is no JSON") from None
        archive, member = (
            (found.get(name) if isinstance(found, dict) else None) for name in ("archive", "member")
        )
        if not (isinstance(archive, str) and isinstance(member, str)):
            raise Malformed("a link to debug information needs an archive and a member")
        if _PATH.fullmatch(archive) is None or _PATH.fullmatch(member) is None:
            raise Malformed("a link to debug information has an empty name or a NUL in it")
        if not (_is_text(archive) and _is_text(member)):
            raise Malformed("a link to debug information has half of a character")
        if any(part in {"", ".", ".."} for part in member.split("/")):
            raise Malformed("the member of a link to debug information is no path in a NAR")
        return cls(archive, member)

    def render(self) -> bytes:
        """Return the JSON as Nix writes it."""
        facts = {"archive": self.archive, "member": self.member}
        return json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "replace"
        )


class _Walk(Builder):
    """A builder that knows the path of each object."""

    def __init__(self) -> None:
        self._above: list[bytes] = []

    def add(self, name: bytes, node: Regular | Symlink) -> None:
        self.saw(b"/".join([*self._above[1:], name]), node)

    def enter(self, name: bytes) -> None:
        self._above.append(name)

    def leave(self) -> None:
        self._above.pop()

    @abstractmethod
    def saw(self, path: bytes, node: Regular | Symlink) -> None:
        """Receive a file or a link and its path in the NAR."""


class DebugFiles(_Walk):
    """A search for the files with symbols in a NAR.

    :ivar build_ids: of the files that were found, `MAX_FOUND` at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.build_ids: list[str] = []

    def saw(self, path: bytes, node: Regular | Symlink) -> None:
        """See `_Walk`."""
        match = _MEMBER.fullmatch(path)
        if match is not None and isinstance(node, Regular) and len(self.build_ids) < MAX_FOUND:
            self.build_ids.append((match[1] + match[2]).decode("ascii"))


class _Enough(Exception):
    """No file with symbols can follow."""


class _Search(DebugFiles):
    """A search that ends after the directory with the symbols: a NAR has its names in order."""

    _place = [name.encode() for name in _FOLDER.split("/")]

    def __init__(self) -> None:
        super().__init__()
        self._left = MAX_BEFORE

    def add(self, name: bytes, node: Regular | Symlink) -> None:
        self._see(name, is_folder=False)
        super().add(name, node)

    def enter(self, name: bytes) -> None:
        self._see(name, is_folder=True)
        super().enter(name)

    def _see(self, name: bytes, *, is_folder: bool) -> None:
        path = [*self._above[1:4], name][:3] if self._above else []
        is_above = path == self._place[: len(path)]
        if is_above and (is_folder or len(self._above) > len(self._place)):
            return
        self._left -= 1
        if is_above or path > self._place or self._left < 0:
            raise _Enough


class SymbolSearch:
    """A search for files with symbols in a NAR that arrives; it costs little beside hashing.

    It stops after the directory where they can be, and after `MAX_BEFORE` other files and
    directories. In bytes that are no NAR it finds none.
    """

    def __init__(self) -> None:
        self._files = _Search()
        self._parser: NarParser | None = NarParser(self._files)

    def feed(self, piece: bytes | memoryview) -> None:
        """Read the next bytes."""
        if self._parser is not None:
            try:
                self._parser.feed(piece)
            except (_Enough, Corrupt):
                self._parser = None

    @property
    def build_ids(self) -> tuple[str, ...]:
        """The build IDs that were found so far."""
        return tuple(self._files.build_ids)


def build_ids_in(listing: Listing) -> list[str]:
    """Return the build IDs of the files with symbols in a NAR, `MAX_FOUND` at most."""
    node: Node = listing.root
    for name in _FOLDER.split("/"):
        below = node.entries.get(name) if isinstance(node, Directory) else None
        if below is None:
            return []
        node = below
    found = _members(node)
    return list(islice(found, MAX_FOUND))


def _members(folder: Node) -> Iterator[str]:
    """Yield the build IDs of the files below `.build-id`."""
    for first, below in folder.entries.items() if isinstance(folder, Directory) else ():
        for name, node in below.entries.items() if isinstance(below, Directory) else ():
            build_id = first + name.removesuffix(".debug")
            is_member = len(first) == 2 and name.endswith(".debug") and is_build_id(build_id)
            if is_member and isinstance(node, Regular):
                yield build_id


class _Finder(_Walk):
    """A search for the file at one path."""

    def __init__(self, path: bytes) -> None:
        super().__init__()
        self._path = path
        self.found: Regular | None = None

    def saw(self, path: bytes, node: Regular | Symlink) -> None:
        if path == self._path:
            if isinstance(node, Symlink):
                raise NotFound("the NAR has a link there, and no file")
            self.found = node


class MemberReader:
    """A reader of one file in a NAR that is fed in pieces.

    :param path: of the file in the NAR.
    """

    def __init__(self, path: str) -> None:
        self._finder = _Finder(path.encode())
        self._parser = NarParser(self._finder)
        self._position = 0
        self._given = 0

    @property
    def size(self) -> int | None:
        """Bytes of the file; None until the parser has reached it."""
        return None if self._finder.found is None else self._finder.found.size

    @property
    def is_done(self) -> bool:
        """Whether `feed` has yielded the whole file."""
        return self._given == self.size

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Read the next bytes of the NAR; yield those of the file.

        Raises Corrupt if it is no NAR, NotFound if there is a link instead of the file.
        """
        self._parser.feed(piece)
        start, self._position = self._position, self._position + len(piece)
        found = self._finder.found
        if found is None:
            return
        first = max(found.offset - start, 0)
        last = min(found.offset + found.size - start, len(piece))
        if first < last:
            self._given += last - first
            yield piece[first:last]

    def finish(self) -> None:
        """End the NAR. Raises Corrupt if it is incomplete, NotFound if it has no such file."""
        self._parser.end()
        if self.size is None:
            raise NotFound("the NAR has no such file")
