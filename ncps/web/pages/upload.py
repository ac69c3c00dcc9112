"""Uploads over HTTP: `PUT /upload/nar/<file>` and `PUT /upload/<32>.narinfo`, and reads there.

The answer is 201 for a new object, and 200 for one that was stored before; both are success for
Nix. With `narinfo-compression`, Nix sends narinfos with a Content-Encoding; it never does for NARs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ncps.cache.answers import ServedNarInfo
from ncps.cache.write.verbs import UploadOutcome, Uploads
from ncps.codec.encodings import compression_in, decoded
from ncps.errors import NcpsError, UnknownEncoding
from ncps.nix.narinfo import MAX_SIZE
from ncps.nix.narurl import NarKey
from ncps.ranges import if_none_match
from ncps.web.answer import TEXT, send
from ncps.web.pages.narinfo import CONTENT_TYPE, check_path, outcome_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import explain, respond


class UploadPages:
    """The pages of uploads."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def put_nar(self, request: NcpsRequest, key: NarKey) -> int:
        """See `grammar.Uploading`."""
        request.digest = key.file_name
        return respond(request, self._take_nar(request, key))

    async def _take_nar(self, request: NcpsRequest, key: NarKey) -> None:
        if compression_in(_encoding_of(request)):
            raise UnknownEncoding("a NAR should be uploaded without a Content-Encoding")
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
        encoding = _encoding_of(request)
        compression_in(encoding)  # before the body comes
        text = decoded(await request.incoming().read(MAX_SIZE), encoding, MAX_SIZE)
        _tell(request, await self._uploads.put_narinfo(digest, text, request.principal))

    def render_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """See `grammar.Uploading`."""
        request.digest = digest
        return respond(request, self._show_narinfo(request, digest))

    async def _show_narinfo(self, request: NcpsRequest, digest: str) -> None:
        found = await self._find(request, digest)
        check_path(request, found.text)
        explain(request, found.outcome, found.upstream)
        request.describe_body(b"ETag", found.tag)
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


def _encoding_of(request: NcpsRequest) -> str:
    return (request.getHeader(b"content-encoding") or b"").decode("latin-1")
