"""A SteadyFile whose bytes are in memory."""

from __future__ import annotations

import os

from ncps.errors import Corrupt
from ncps.ports import SteadyFile


class MemoryFile(SteadyFile):
    """Has a descriptor of its own, which has to be closed like that of a real file."""

    def __init__(self, data: bytes) -> None:
        self.fd = os.open(os.devnull, os.O_RDONLY)
        self._data = data

    def read_into(self, buffer: memoryview, position: int) -> int | None:
        part = self._data[position : position + len(buffer)]
        if not part:
            raise Corrupt("the file is shorter than it was")
        buffer[: len(part)] = part
        return len(part)
