"""Pins and removals over HTTP, for tokens with the scopes `pin` and `delete`.

POST   /pin/<32>.narinfo     pins a closure; without a query the answer is that of the Go
                             program: an empty body
DELETE /pin/<32>.narinfo
GET    /pins                 the roots, as the Go program lists them; ?details=1 adds details
DELETE /<32>.narinfo  /nar/<file>     ?force=1 even if a pin keeps it
POST   /api/v1/remove        removes paths with their NARs, or closures; may block the paths
GET    /api/v1/blocked  DELETE /api/v1/blocked/<32>
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from ncps.auth.guard import Forbidden, permitted
from ncps.auth.principal import Scope
from ncps.cache.closures.permit import Permit
from ncps.cache.closures.pinning import PinSight, PinVerbs, PinWish
from ncps.cache.closures.removing import RemovalReport, RemovalVerbs, RemovalWish
from ncps.errors import Malformed
from ncps.nix.narurl import NarKey
from ncps.nix.storepath import is_digest
from ncps.ports import Block, Pin
from ncps.web.answer import send
from ncps.web.pages.info import JSON, written
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

MOST_BYTES: Final = 64 * 1024
"""Bytes of a body."""
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)
_FLAGS: Final = {"1": True, "true": True, "0": False, "false": False}

Wishes = Mapping[str, object]


def permit_of(request: NcpsRequest, scope: Scope) -> Permit:
    """Return the permit of the client of a request; it raises Forbidden."""

    def permit(base: str | None) -> None:
        if base is not None:
            permitted(request.principal, scope, base)
        elif request.principal.paths is not None:
            raise Forbidden("these credentials are for some store paths only, not for all")

    return permit


class PinPages:
    """The pages of `/pin/<32>.narinfo` and `/pins`."""

    def __init__(self, pins: PinVerbs) -> None:
        self._pins = pins

    def pin(self, request: NcpsRequest, digest: str) -> int:
        """Pin a closure."""
        request.digest = digest
        return respond(request, self._pin(request, digest))

    def unpin(self, request: NcpsRequest, digest: str) -> int:
        """Remove a pin."""
        request.digest = digest
        return respond(request, self._unpin(request, digest))

    def list(self, request: NcpsRequest) -> int:
        """List the pins."""
        return respond(request, self._list(request))

    async def _pin(self, request: NcpsRequest, digest: str) -> None:
        wishes = await _wishes(request, "label", "expires", "fetch")
        wish = PinWish(
            label=_text(wishes, "label"),
            expires_s=_seconds(wishes, "expires"),
            fetch=_flag(wishes, "fetch"),
        )
        sight = await self._pins.pin(digest, wish, permit_of(request, Scope.PIN))
        request.setHeader(b"Cache-Control", b"no-store")
        if wishes or _wants_json(request):
            send(request, written(_sight(sight)), JSON)
        else:
            request.setHeader(b"Content-Length", b"0")

    async def _unpin(self, request: NcpsRequest, digest: str) -> None:
        await self._pins.unpin(digest, permit_of(request, Scope.PIN))
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"Content-Length", b"0")

    async def _list(self, request: NcpsRequest) -> None:
        details = _flag(_query(request, "details"), "details")
        pins = await self._pins.pins()
        request.setHeader(b"Cache-Control", b"no-store")
        data: object = [_pin(pin) for pin in pins] if details else [pin.digest for pin in pins]
        send(request, written(data), JSON)


class RemovalPages:
    """The pages of deletions of narinfos and NARs, `/api/v1/remove` and `/api/v1/blocked`."""

    def __init__(self, removals: RemovalVerbs) -> None:
        self._removals = removals

    def delete_narinfo(self, request: NcpsRequest, digest: str) -> int:
        """Delete a narinfo."""
        request.digest = digest
        return respond(request, self._delete_narinfo(request, digest))

    def delete_nar(self, request: NcpsRequest, key: NarKey) -> int:
        """Delete a NAR."""
        request.digest = key.file_name
        return respond(request, self._delete_nar(request, key))

    def remove(self, request: NcpsRequest) -> int:
        """Remove paths."""
        return respond(request, self._remove(request))

    def blocked(self, request: NcpsRequest) -> int:
        """List the blocked paths."""
        return respond(request, self._blocked(request))

    def unblock(self, request: NcpsRequest, digest: str) -> int:
        """Allow a path to be fetched again."""
        request.digest = digest
        return respond(request, self._unblock(request, digest))

    async def _delete_narinfo(self, request: NcpsRequest, digest: str) -> None:
        force, permit = _force(request), permit_of(request, Scope.DELETE)
        await self._removals.delete_narinfo(digest, force=force, permit=permit)
        _no_content(request)

    async def _delete_nar(self, request: NcpsRequest, key: NarKey) -> None:
        force, permit = _force(request), permit_of(request, Scope.DELETE)
        await self._removals.delete_nar(key, force=force, permit=permit)
        _no_content(request)

    async def _remove(self, request: NcpsRequest) -> None:
        flags = ("closure", "never_again", "dry_run", "force")
        wishes = await _wishes(request, "hashes", *flags)
        hashes = wishes.get("hashes")
        if not isinstance(hashes, list) or not all(
            isinstance(each, str) and is_digest(each) for each in hashes
        ):
            raise Malformed('"hashes" should be a list of hash parts of store paths')
        wish = RemovalWish(
            digests=tuple(dict.fromkeys(hashes)),
            closure=_flag(wishes, "closure"),
            never_again=_flag(wishes, "never_again"),
            dry_run=_flag(wishes, "dry_run"),
            force=_flag(wishes, "force"),
        )
        report = await self._removals.remove(wish, permit_of(request, Scope.DELETE))
        request.setHeader(b"Cache-Control", b"no-store")
        send(request, written(_report(report)), JSON)

    async def _blocked(self, request: NcpsRequest) -> None:
        blocks = await self._removals.blocked()
        request.setHeader(b"Cache-Control", b"no-store")
        send(request, written([_block(block) for block in blocks]), JSON)

    async def _unblock(self, request: NcpsRequest, digest: str) -> None:
        permit_of(request, Scope.DELETE)(None)
        is_gone = await self._removals.unblock(digest)
        if is_gone:
            _no_content(request)
        else:
            request.setResponseCode(404)
            send(request, b"it is not blocked\n", b"text/plain; charset=utf-8")


def _no_content(request: NcpsRequest) -> None:
    request.setResponseCode(204)
    request.setHeader(b"Cache-Control", b"no-store")


def _wants_json(request: NcpsRequest) -> bool:
    return b"application/json" in (request.getHeader(b"accept") or b"")


def _query(request: NcpsRequest, *names: str) -> dict[str, object]:
    """Read the query string. Raises Malformed for other names."""
    text = request.uri.partition(b"?")[2]
    try:
        found: dict[str, object] = dict(
            parse_qsl(
                text.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=bool(text),
                max_num_fields=len(names),
            )
        )
    except ValueError:
        raise Malformed(f"the query may have {', '.join(names)}") from None
    return _known(found, names)


async def _wishes(request: NcpsRequest, *names: str) -> dict[str, object]:
    """Read the query string and the body, a JSON object, which overrides the query string."""
    wishes = _query(request, *names)
    body = await request.incoming().read(MOST_BYTES)
    if not body:
        return wishes
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if not isinstance(data, dict):
        raise Malformed("the body should be a JSON object")
    return wishes | _known(data, names)


def _known(found: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    for name in found:
        if name not in names:
            raise Malformed(f"{name[:64]!r} should be one of {', '.join(names)}")
    return found


def _flag(wishes: Wishes, name: str) -> bool:
    value = wishes.get(name, False)
    found = value if isinstance(value, bool) else _FLAGS.get(str(value))
    if found is None:
        raise Malformed(f"{name} should be 1 or 0")
    return found


def _text(wishes: Wishes, name: str) -> str:
    value = wishes.get(name, "")
    if not isinstance(value, str):
        raise Malformed(f"{name} should be a text")
    return value


def _seconds(wishes: Wishes, name: str) -> float | None:
    """Read a time such as 90d; None if there is none."""
    value = wishes.get(name)
    if value is None:
        return None
    match = _TIME.fullmatch(str(value))
    if match is None:
        raise Malformed(f"{name} should be a number of seconds, or a time such as 12h or 90d")
    return float(match[1]) * _UNITS[match[2]]


def _force(request: NcpsRequest) -> bool:
    return _flag(_query(request, "force"), "force")


def _moment(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _pin(pin: Pin) -> dict[str, Any]:
    return {
        "hash": pin.digest,
        "label": pin.label,
        "created": _moment(pin.created_at),
        "expires": _moment(pin.expires_at),
        "fetch": pin.is_fetching,
        "paths": pin.paths,
        "missing": pin.missing,
        "size": pin.size,
        "looked": _moment(pin.looked_at),
    }


def _sight(sight: PinSight) -> dict[str, Any]:
    return _pin(sight.pin) | {"missingPaths": list(sight.missing)}


def _report(report: RemovalReport) -> dict[str, Any]:
    return {
        "removed": list(report.removed),
        "count": report.count,
        "kept": report.kept,
        "busy": list(report.busy),
        "size": report.size,
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "hash": block.digest,
        "name": block.name,
        "blocked": _moment(block.blocked_at),
        "files": [str(each) for each in block.hashes],
    }
