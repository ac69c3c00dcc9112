"""Content: decodes the Content-Encoding of answers' bodies, and detects web pages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Final

from ncps import codec
from ncps.codec import Decoder, deflate
from ncps.codec.ratio import Ratio
from ncps.errors import Corrupt, Unavailable, Unconfirmed
from ncps.upstream.agent import Answer

_CODECS: Final = {
    "zstd": "zstd",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "br": "br",
    "xz": "xz",
    "bzip2": "bzip2",
}
_PAGE: Final = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)
_PAGE_HEAD: Final = 64
"""Number of first bytes, with leading blanks, by which a web page is detected."""


def _decoder(encoding: str) -> Decoder:
    if encoding == "deflate":
        return deflate.decoder()
    name = _CODECS.get(encoding)
    if name is None:
        raise Corrupt(f"unknown Content-Encoding {encoding[:40]!r}")
    return codec.decoder(name)


async def decoded(
    answer: Answer, fetched: Callable[[int], object], ratio: Ratio | None = None
) -> AsyncIterator[bytes]:
    """Yield the body of an answer without its Content-Encoding.

    Raises Unavailable if the connection breaks, Corrupt if the body cannot be decoded, Unconfirmed
    if nothing shows that the end is the right one. An encoding that marks its end confirms the end.

    :param fetched: called with the number of received bytes of each chunk.
    :param ratio: bounds the bytes that are decoded from them.
    """
    if not answer.encoding:
        async for chunk in answer.body:
            fetched(len(chunk))
            yield chunk
        return
    decoder = _decoder(answer.encoding)
    doubt: Unconfirmed | None = None
    try:
        async for chunk in answer.body:
            fetched(len(chunk))
            if ratio is not None:
                ratio.took(len(chunk))
            for piece in decoder.feed(chunk):
                if ratio is not None:
                    ratio.gave(len(piece))
                yield piece
    except Unconfirmed as error:
        doubt = error
    try:
        decoder.finish()
    except Corrupt as error:
        raise doubt or error from None


async def no_page(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass the bytes on. Raises Corrupt if they begin like a web page.

    This ignores Content-Type, because some servers call a NAR text/html.
    """
    head: bytes | None = b""
    broken: Unavailable | None = None
    try:
        async for chunk in chunks:
            if head is None:
                yield chunk
                continue
            head += chunk
            if len(head) >= _PAGE_HEAD:
                yield _checked(head)
                head = None
    except Unavailable as error:
        broken = error
    if head:
        yield _checked(head)
    if broken is not None:
        raise broken


def is_page(text: bytes) -> bool:
    """Return whether a text begins like a web page."""
    return _PAGE.match(text) is not None


def _checked(head: bytes) -> bytes:
    if is_page(head):
        raise Corrupt("a web page instead of a NAR")
    return head
