"""Verbs for extras that answer from dictionaries."""

from __future__ import annotations

from ncps.cache.answers import Absent, Outcome
from ncps.cache.extras.answers import Extras, ServedExtra
from ncps.errors import NcpsError
from tests.fakes.stores import MemoryBody


class StubExtras(Extras):
    """Answers from dictionaries, and records what it was asked."""

    max_size = 1000
    about = f"{'0' * 32}-path"
    """The path that listings are of."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes | NcpsError] = {}
        self.added: list[tuple[str, bytes, str]] = []
        self.local: list[bool] = []
        self.error: NcpsError | None = None
        self.bodies: list[MemoryBody] = []

    def _served(self, name: str, *, is_local: bool) -> ServedExtra:
        self.local.append(is_local)
        found = self.texts.get(name, Absent("nothing", outcome=Outcome.NEGATIVE))
        if isinstance(found, NcpsError):
            raise found
        self.bodies.append(MemoryBody(found))
        return ServedExtra(
            body=self.bodies[-1],
            size=len(found),
            outcome=Outcome.HIT,
            upstream="up.example",
            path=self.about if name.startswith("listing") else "",
        )

    async def log(self, name: str, *, is_local: bool = False) -> ServedExtra:
        return self._served(f"log {name}", is_local=is_local)

    async def listing(self, digest: str, *, is_local: bool = False) -> ServedExtra:
        return self._served(f"listing {digest}", is_local=is_local)

    async def debug_link(self, build_id: str, *, is_local: bool = False) -> ServedExtra:
        return self._served(f"link {build_id}", is_local=is_local)

    async def symbols(self, build_id: str) -> ServedExtra:
        return self._served(f"symbols {build_id}", is_local=False)

    def _add(self, name: str, data: bytes, encoding: str = "") -> bool:
        if self.error is not None:
            raise self.error
        self.added.append((name, data, encoding))
        return len(self.added) == 1

    async def add_log(self, name: str, data: bytes, encoding: str = "") -> bool:
        return self._add(name, data, encoding)

    async def add_debug_link(self, build_id: str, text: bytes) -> bool:
        return self._add(build_id, text)
