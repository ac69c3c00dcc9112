"""Queries about many store paths: `POST /api/v1/query` and `GET /api/v1/closure/<32>`.

A closure is sent while it is read, a line of JSON for each path. The last line has `end`: an answer
without it is incomplete. If an error occurs in the middle, the connection is cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from twisted.web.server import NOT_DONE_YET

from ncps.aio.threads import Threads
from ncps.cache.bulk.answers import MOST_HASHES, Bulk, Closure, ClosurePath, PathState
from ncps.errors import Malformed, TooLarge
from ncps.nix.storepath import STORE_DIR, is_digest
from ncps.web.answer import send, tell
from ncps.web.pages.info import JSON
from ncps.web.pages.nar import writer_of
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

MOST_BYTES: Final = 1024 * 1024
"""Bytes of a query, at most."""

LINES: Final = b"application/x-ndjson"

_QUERIES: Final = {b"": False, b"fetch=0": False, b"fetch=1": True}
"""The query strings that a client may write, and whether narinfos are then fetched."""


class QueryPage:
    """The page of `POST /api/v1/query`.

    :param threads: read queries and write answers, which takes longer than a turn of the reactor
        should take.
    """

    def __init__(self, bulk: Bulk, threads: Threads) -> None:
        self._bulk = bulk
        self._threads = threads

    def render(self, request: NcpsRequest) -> int:
        """See `grammar.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        body = await request.incoming().read(MOST_BYTES)
        digests, ask = await self._threads.run(read_question, body)
        states = await self._bulk.query(digests, ask=ask)
        request.setHeader(b"Cache-Control", b"no-store")
        send(request, await self._threads.run(_answer, states), JSON)


def read_question(body: bytes) -> tuple[list[str], bool]:
    """Return the hash parts, and whether to ask upstreams. Raises Malformed for another body."""
    try:
        question = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed('this is not JSON; it should be {"hashes": ["<32 digits>", ...]}') from None
    if not isinstance(question, dict) or not question.keys() <= {"hashes", "upstreams"}:
        raise Malformed('it should be an object with "hashes" and, optionally, "upstreams"')
    ask = question.get("upstreams", False)
    if not isinstance(ask, bool):
        raise Malformed('"upstreams" should be true or false')
    digests = question.get("hashes")
    if not isinstance(digests, list):
        raise Malformed('"hashes" should be a list of hash parts of store paths')
    if len(digests) > MOST_HASHES:
        raise TooLarge(
            f'"hashes" has {len(digests)} entries; at most {MOST_HASHES} are accepted in one query'
        )
    for digest in digests:
        if not isinstance(digest, str) or not is_digest(digest):
            raise Malformed(
                f'"hashes" has {json.dumps(digest)[:64]}; a hash part is the first 32 characters of'
                " the name of a store path"
            )
    return digests, ask


def _answer(states: Sequence[PathState]) -> bytes:
    return _written({"paths": [_fields(state) for state in states]})


def _fields(state: PathState) -> dict[str, Any]:
    fields: dict[str, Any] = {"hash": state.digest, "where": state.where.value}
    if state.base:
        fields["storePath"] = f"{STORE_DIR}/{state.base}"
    if state.upstream:
        fields["upstream"] = state.upstream
    if state.nar_size is not None:
        fields["narSize"] = state.nar_size
    if state.file_size is not None:
        fields["fileSize"] = state.file_size
    return fields


class ClosurePages:
    """The pages of `GET /api/v1/closure/<32>`."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    def render(self, request: NcpsRequest, digest: str) -> int:
        """See `grammar.NarInfoAnswers`."""
        request.digest = digest
        fetch = _QUERIES.get(request.uri.partition(b"?")[2])
        if fetch is None:
            tell(request, 400, "the query may be fetch=1, or empty")
            return NOT_DONE_YET
        return respond(request, self._answer(request, digest, fetch=fetch))

    async def _answer(self, request: NcpsRequest, digest: str, *, fetch: bool) -> None:
        closure = await self._bulk.closure(digest, fetch=fetch)
        try:
            request.setHeader(b"Content-Type", LINES)
            request.setHeader(b"Cache-Control", b"no-store")
            if request.method == b"HEAD":
                request.write(b"")
            else:
                await _send(request, closure)
        finally:
            closure.close()


async def _send(request: NcpsRequest, closure: Closure) -> None:
    paths = missing = 0
    writer = writer_of(request)
    try:
        while found := await closure.more():
            paths += len(found)
            missing += sum(not path.narinfo for path in found)
            await writer.write(b"".join(map(_line, found)))
        end = {"end": True, "paths": paths, "missing": missing, "cut": closure.is_cut}
        await writer.write(_written(end))
    finally:
        writer.close()


def _line(path: ClosurePath) -> bytes:
    fields = {"hash": path.digest, "where": path.where.value}
    if path.base != path.digest:
        fields["storePath"] = f"{STORE_DIR}/{path.base}"
    if path.narinfo:
        fields["narinfo"] = path.narinfo.decode("ascii")
    return _written(fields)


def _written(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
