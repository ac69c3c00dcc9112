"""Realisations in memory: index and store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from attrs import evolve

from ncps.nix.realisation import RealisationKey
from ncps.ports import RealisationEntry, Realisations, RealisationStore
from ncps.storage import keys
from tests.fakes.failing import Failing


class MemoryRealisations(Failing, Realisations):
    """Entries in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[RealisationKey, RealisationEntry] = {}

    async def find(self, key: RealisationKey) -> RealisationEntry | None:
        self._reading()
        return self.entries.get(key)

    async def put(self, entry: RealisationEntry, before: RealisationEntry | None) -> bool:
        self._writing()
        there = self.entries.get(entry.key)
        if there is not None:
            entry = evolve(entry, last_used_at=there.last_used_at)
        if there not in (None, entry):
            if before is None or evolve(before, last_used_at=entry.last_used_at) != there:
                return False
        elif there is None and before is not None:
            return False
        self.entries[entry.key] = entry
        return True

    async def forget(self, key: RealisationKey) -> bool:
        self._writing()
        return self.entries.pop(key, None) is not None

    async def uploaded(self) -> tuple[int, int]:
        self._reading()
        texts = [e.realisation.render() for e in self.entries.values() if e.is_uploaded]
        return len(texts), sum(map(len, texts))

    async def touch(self, uses: Mapping[RealisationKey, datetime]) -> None:
        self._writing()
        for key, at in uses.items():
            there = self.entries.get(key)
            if there is not None and there.last_used_at < at:
                self.entries[key] = evolve(there, last_used_at=at)

    async def forget_unused(self, before: datetime, most: int, limit: int) -> int:
        self._writing()
        fetched = [entry for entry in self.entries.values() if not entry.is_uploaded]
        fetched.sort(key=lambda entry: (entry.last_used_at, entry.key.path))
        surplus = len(fetched) - most
        unused = [
            entry.key
            for at, entry in enumerate(fetched[:limit])
            if at < surplus or entry.last_used_at < before
        ]
        for key in unused:
            del self.entries[key]
        return len(unused)


class MemoryRealisationStore(Failing, RealisationStore):
    """Texts in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, bytes] = {}

    def _checked(self, digest: str) -> str:
        self._reading()
        keys.realisation_key(digest)
        return digest

    async def put(self, digest: str, text: bytes) -> None:
        self._writing()
        self.texts[self._checked(digest)] = text

    async def get(self, digest: str) -> bytes | None:
        return self.texts.get(self._checked(digest))

    async def delete(self, digest: str) -> bool:
        return self.texts.pop(self._checked(digest), None) is not None

    async def walk(self) -> AsyncIterator[str]:
        self._reading()
        for digest in list(self.texts):
            yield digest
