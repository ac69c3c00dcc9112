"""Uploads over HTTP: `PUT /upload/nar/<file>` and `PUT /upload/<32>.narinfo`, and reads there.

A new object is answered by 201, one that was here by 200; Nix takes both for success. Nix sends a
narinfo in an encoding if it is told to (`narinfo-compression`), and NARs never.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ncps import codec
from ncps.cache.answers import ServedNarInfo
from ncps.cache.write.verbs import UploadOutcome, Uploads
from ncps.errors import Corrupt, Malformed, NcpsError, TooLarge
from ncps.nix.narinfo import MAX_SIZE
from ncps.nix.narurl import NarKey
from ncps.ranges import if_none_match
from ncps.web.answer import TEXT, send
from ncps.web.pages.narinfo import CONTENT_TYPE, check_path, outcome_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond

_ENCODINGS: Final = {
    "": "",
    "identity": "",
    "br": "br",
    "bzip2": "bzip2",
    "gzip": "gzip",
    "lz4": "lz4",
    "x-gzip": "gzip",
    "xz": "xz",
    "zstd": "zstd",
}
"""Values of Content-Encoding, and the compressions that they stand for."""


def encoding_of(request: NcpsRequest) -> str:
    """Return the compression of a body; empty for none. Raises Malformed if it is unknown."""
    told = (request.getHeader(b"content-encoding") or b"").decode("latin-1").strip().lower()
    if told not in _ENCODINGS:
        raise Malformed(f"Content-Encoding {told[:40]!r} is not known here")
    return _ENCODINGS[told]


def decoded(data: bytes, compression: str, most: int) -> bytes:
    """Undo a compression. Raises Malformed if that fails, TooLarge beyond `most` bytes."""
    if not compression:
        return data
    decoder = codec.decoder(compression)
    whole = bytearray()
    try:
        for piece in decoder.feed(data):
            whole += piece
            if len(whole) > most:
                raise TooLarge(f"the body becomes more than {most} bytes")
        decoder.finish()
    except Corrupt as error:
        raise Malformed(f"the body is not in {compression}: {error}") from error
    return bytes(whole)


class UploadPages:
    """Takes uploads."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def put_nar(self, request: NcpsRequest, key: NarKey) -> int:
        """See `grammar.Uploading`."""
        request.digest = key.file_name
        return respond(request, self._take_nar(request, key))

    async def _take_nar(self, request: NcpsRequest, key: NarKey) -> None:
        if encoding_of(request):
            raise Malformed("a NAR is uploaded as it is, without a Content-Encoding")
        body = request.incoming()
        body.gather(lambda: request.site.receiving)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in body:
                yield chunk

        _tell(request, await self._uploads.put_nar(key, chunks(), body.length))

    def put_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """See `grammar.Uploading`."""
        request.digest = digest
        return respond(request, self._take_narinfo(request, digest))

    async def _take_narinfo(self, request: NcpsRequest, digest: str) -> None:
        compression = encoding_of(request)
        text = decoded(await request.incoming().read(MAX_SIZE), compression, MAX_SIZE)
        _tell(request, await self._uploads.put_narinfo(digest, text, request.principal))

    def render_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """See `grammar.Uploading`."""
        request.digest = digest
        return respond(request, self._show_narinfo(request, digest))

    async def _show_narinfo(self, request: NcpsRequest, digest: str) -> None:
        found = await self._find(request, digest)
        check_path(request, found.text)
        explain(request, found.outcome, found.upstream)
        request.setHeader(b"ETag", found.tag)
        request.setHeader(b"Cache-Control", b"no-store")
        if if_none_match(request.getHeader(b"if-none-match"), found.tag):
            request.setResponseCode(304)
            return
        send(request, found.text, CONTENT_TYPE)

    async def _find(self, request: NcpsRequest, digest: str) -> ServedNarInfo:
        try:
            return await self._uploads.narinfo(digest)
        except NcpsError as error:
            explain(request, outcome_of(error))
            raise


def _tell(request: NcpsRequest, outcome: UploadOutcome) -> None:
    """Answer an upload that has succeeded."""
    if request.gone:
        return
    request.setResponseCode(201 if outcome is UploadOutcome.STORED else 200)
    request.setHeader(b"Cache-Control", b"no-store")
    send(request, f"{outcome.value}\n".encode(), TEXT)
