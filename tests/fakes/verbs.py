"""Pins and removals that answer as they are told."""

from __future__ import annotations

from datetime import UTC, datetime

from ncps.cache.closures.permit import Permit, anything
from ncps.cache.closures.pinning import PinSight, PinVerbs, PinWish
from ncps.cache.closures.removing import RemovalReport, RemovalVerbs, RemovalWish
from ncps.errors import NcpsError
from ncps.nix.narurl import NarKey
from ncps.ports import Block, Pin

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class StubClosures(PinVerbs, RemovalVerbs):
    """Notes what it is asked for.

    :ivar failing: raised by every call while it is set.
    :ivar base: base name of every path; None: not known.
    """

    def __init__(self) -> None:
        self.failing: NcpsError | None = None
        self.base: str | None = None
        self.rows: list[Pin] = []
        self.asked: list[object] = []
        self.blocks: list[Block] = []

    def _note(self, asked: object, permit: Permit = anything) -> None:
        if self.failing is not None:
            raise self.failing.with_traceback(None)
        permit(self.base)
        self.asked.append(asked)

    async def pin(self, digest: str, wish: PinWish, permit: Permit = anything) -> PinSight:
        self._note((digest, wish), permit)
        pin = Pin(digest=digest, label=wish.label, created_at=AT, paths=2, missing=1, looked_at=AT)
        return PinSight(pin=pin, missing=("1" * 32,))

    async def unpin(self, digest: str, permit: Permit = anything) -> bool:
        self._note(("unpin", digest), permit)
        return False

    async def pins(self) -> list[Pin]:
        self._note("pins")
        return self.rows

    async def delete_narinfo(
        self, digest: str, *, force: bool = False, permit: Permit = anything
    ) -> None:
        self._note((digest, force), permit)

    async def delete_nar(
        self, key: NarKey, *, force: bool = False, permit: Permit = anything
    ) -> None:
        self._note((key, force), permit)

    async def remove(self, wish: RemovalWish, permit: Permit = anything) -> RemovalReport:
        self._note(wish, permit)
        return RemovalReport(removed=("a", "b"), count=2, kept=1, busy=("c",), size=7)

    async def blocked(self) -> list[Block]:
        self._note("blocked")
        return self.blocks

    async def unblock(self, digest: str) -> bool:
        self._note(("unblock", digest))
        return bool(self.blocks)
