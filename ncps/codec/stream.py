"""The interfaces of all codecs, and the decoding of several streams in one file.

The decompressors of the standard library have one interface (`decompress` with a limit of the
output, `eof`, `needs_input`, `unused_data`), and adapters give it to the others. `StreamDecoder`
handles the cases that they leave to their caller: one stream may follow another in a file, the file
may end too early, other data may follow the end, and a kilobyte may become a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from ncps.errors import Corrupt

PIECE: Final = 128 * 1024
"""Bytes of a decoder's output piece, about; never more than twice this."""

SLICE: Final = 32 * 1024
"""Compressed bytes of one step; limits the bytes that are copied between streams."""

_NO_MEMORY: Final = ("not enough memory", "ERROR_allocation_failed", "Error -4 while")
"""Messages of libzstd, liblz4 and zlib that mean MemoryError."""

_TOO_MUCH: Final = "Memory usage limit exceeded"
"""The message of liblzma if the data need more memory than its limit."""

Data = bytes | memoryview


class TooDear(Corrupt):
    """The data may be right, but to decompress them takes more memory than the limit."""


class Decoder(Protocol):
    """A decoder of a compressed file that is fed in pieces of any size.

    It raises Corrupt if the data are wrong, and cannot be used after that.
    """

    def feed(self, data: Data) -> Iterator[bytes]:
        """Decode `data`: yield any number of pieces of at most 256 KiB.

        The iterator does the work; consume it to its end before the next call.
        """

    def finish(self) -> None:
        """End the file. Raises Corrupt if it is not complete."""


class Encoder(Protocol):
    """An encoder of a file that is fed in pieces of any size."""

    def feed(self, data: Data) -> bytes:
        """Take `data` in and return what is ready."""

    def finish(self) -> bytes:
        """Return the rest; to be called once."""


class Decompressor(Protocol):
    """The interface of `lzma.LZMADecompressor` and similar classes, for one stream.

    :ivar eof: whether the stream has ended and all its output was returned.
    :ivar needs_input: whether more output needs more input.
    :ivar unused_data: the input after the end of the stream.
    """

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Data, max_length: int) -> bytes:
        """Decode the input that is left and then `data`; return at most `max_length` bytes."""


class StreamDecoder(Decoder):
    """A decoder of a file with one compressed stream or several.

    :param name: of the compression, for messages.
    :param begin: makes the decompressor of the next stream.
    :param faults: the error that this decompressor raises for bad data.
    :param may_repeat: whether one stream may follow another.
    :param padding: zero bytes after a stream are padding if their number is a multiple of this; 0:
        they are data.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Decompressor],
        faults: type[Exception],
        *,
        may_repeat: bool = True,
        padding: int = 0,
    ) -> None:
        self._name = name
        self._begin = begin
        self._faults = faults
        self._may_repeat = may_repeat
        self._padding = padding
        self._zeros = 0
        self._has_begun = False
        self._stream: Decompressor | None = None

    def feed(self, data: Data) -> Iterator[bytes]:
        view = memoryview(data)
        for start in range(0, len(view), SLICE):
            yield from self._decode(view[start : start + SLICE])

    def _decode(self, data: Data) -> Iterator[bytes]:
        while True:
            if self._stream is None:
                data = self._without_padding(data)
                if not data:
                    return
                self._stream = self._next_stream()
            try:
                piece = self._stream.decompress(data, PIECE)
            except self._faults as error:
                if any(words in str(error) for words in _NO_MEMORY):
                    raise MemoryError(str(error)) from error
                if _TOO_MUCH in str(error):
                    raise TooDear(f"bad {self._name} data: {error}") from error
                raise Corrupt(f"bad {self._name} data: {error}") from error
            if piece:
                yield piece
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream = None
            elif self._stream.needs_input and len(piece) < PIECE:
                return  # else more output may follow (Brotli counts only unread input)

    def _without_padding(self, data: Data) -> Data:
        if not (self._padding and self._has_begun):
            return data
        rest = bytes(data).lstrip(b"\0")
        self._zeros += len(data) - len(rest)
        if rest:
            self._check_padding()
        return rest

    def _check_padding(self) -> None:
        if self._padding and self._zeros % self._padding:
            raise Corrupt(f"bad {self._name} data: {self._zeros} zero bytes after the end")
        self._zeros = 0

    def _next_stream(self) -> Decompressor:
        if self._has_begun and not self._may_repeat:
            raise Corrupt(f"bad {self._name} data: something follows the end")
        self._has_begun = True
        return self._begin()

    def finish(self) -> None:
        if self._stream is not None or not self._has_begun:
            raise Corrupt(f"bad {self._name} data: it ends too early")
        self._check_padding()


class Compressor(Protocol):
    """The interface of `lzma.LZMACompressor` and similar classes."""

    def compress(self, data: Data, /) -> bytes:
        """Take `data` in and return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


class StreamEncoder(Encoder):
    """An encoder of a file as one stream of a compressor."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor

    def feed(self, data: Data) -> bytes:
        return self._compressor.compress(data)

    def finish(self) -> bytes:
        return self._compressor.flush()
