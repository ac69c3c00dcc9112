"""The length of a body in chunks (RFC 9112, section 7.1), which the Go program sends."""

from __future__ import annotations


class Chunks:
    """Counts the bytes of a body as they arrive. A body has no trailers.

    :ivar is_whole: whether the last chunk has arrived.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self._left = 0
        self._is_last = False
        self._line = b""

    def take(self, data: bytes) -> int:
        """Count received data; return the number of its bytes that belong to the body.

        Raises ValueError if the data is not in chunks.
        """
        count = 0
        while data and not self.is_whole:
            if self._left:
                taken = min(self._left, len(data))
                count, self._left, data = count + taken, self._left - taken, data[taken:]
                continue
            line, end, data = (self._line + data).partition(b"\r\n")
            if not end:
                self._line = line
                break
            self._line = b""
            self._take_line(line)
        return count

    def _take_line(self, line: bytes) -> None:
        """Read the size of a chunk, or the empty line after one."""
        if line:
            self._left = int(line.partition(b";")[0], 16)
            self._is_last = not self._left
        elif self._is_last:
            self.is_whole = True
