"""Small ELF files, made without a compiler: a program without symbols, and its symbols."""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from typing import Final

from attrs import frozen

MACHINES: Final = {"x86_64": 62, "aarch64": 183}
ADDRESS: Final = 0x400000
_TEXT: Final = 0x1000
_HEAD, _SECTION, _SEGMENT = 64, 64, 56
_PROGBITS, _SYMTAB, _STRTAB, _NOTE, _NOBITS = 1, 2, 3, 7, 8
_ALLOCATED, _EXECUTABLE = 2, 4


@frozen
class _Section:
    name: str
    kind: int
    data: bytes
    flags: int = 0
    address: int = 0
    link: int = 0
    info: int = 0
    entry: int = 0


def program(build_id: str) -> bytes:
    """Return a program without symbols, with a build ID."""
    return _file(_common(build_id, _PROGBITS))


def symbols(build_id: str, function: str) -> bytes:
    """Return the file with the symbols of that program: one function name."""
    names = b"\0" + function.encode() + b"\0"
    table = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 2, ADDRESS + _TEXT, 16)
    sections = [
        *_common(build_id, _NOBITS),
        _Section(".symtab", _SYMTAB, table, link=4, info=1, entry=24),
        _Section(".strtab", _STRTAB, names),
    ]
    return _file(sections)


def _common(build_id: str, text: int) -> list[_Section]:
    note = struct.pack("<III", 4, len(build_id) // 2, 3) + b"GNU\0" + bytes.fromhex(build_id)
    return [
        _Section(".note.gnu.build-id", _NOTE, note, _ALLOCATED, ADDRESS + 0x200),
        _Section(".text", text, b"\xc3" * 16, _ALLOCATED | _EXECUTABLE, ADDRESS + _TEXT),
    ]


def _file(sections: Sequence[_Section]) -> bytes:
    """Return a file of head, segments, contents, and the table of sections."""
    names = b"\0" + b"".join(each.name.encode() + b"\0" for each in sections) + b".shstrtab\0"
    sections = [*sections, _Section(".shstrtab", _STRTAB, names)]
    segments = [each for each in sections if each.flags & _ALLOCATED]
    body = bytearray(_HEAD + _SEGMENT * len(segments))
    rows, heads = [bytes(_SECTION)], []
    for each in sections:
        start = each.address - ADDRESS if each.address else -(-len(body) // 16) * 16
        if each.kind != _NOBITS:
            body += bytes(start - len(body)) + each.data
        size = len(each.data)
        at = names.index(each.name.encode() + b"\0")
        places = each.flags, each.address, start, size
        rows.append(
            struct.pack("<IIQQQQIIQQ", at, each.kind, *places, each.link, each.info, 4, each.entry)
        )
        if each in segments:
            kind, flags = (4, 4) if each.kind == _NOTE else (1, 5)
            file_size = 0 if each.kind == _NOBITS else size
            heads.append(
                struct.pack(
                    "<IIQQQQQQ", kind, flags, start, each.address, each.address, file_size, size, 4
                )
            )
    table = -(-len(body) // 16) * 16
    body += bytes(table - len(body)) + b"".join(rows)
    counts = _HEAD, _SEGMENT, len(heads), _SECTION, len(rows), len(rows) - 1
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, MACHINES[platform.machine()], 1, ADDRESS + _TEXT, _HEAD, table, 0),
        *counts,
    )
    body[: len(head)] = head
    body[_HEAD : _HEAD + _SEGMENT * len(heads)] = b"".join(heads)
    return bytes(body)
