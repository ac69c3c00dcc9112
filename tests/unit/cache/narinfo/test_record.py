"""Records: the number of queries to the catalog before a narinfo is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import evolve

from ncps.errors import StorageFull
from ncps.nix.keys import Signature
from ncps.ports import NarInfoEntry, NarRecord
from tests.fakes.samples import sample
from tests.unit.cache.narinfo.rig import NarInfosCase


class NewPathTests(NarInfosCase):
    """A path at the first upstream, and the rows that are read for its narinfo."""

    def setUp(self) -> None:
        super().setUp()
        self.read: list[object] = []
        for name in ("nar", "narinfo"):
            self.patch(self.catalog, name, self.counted(getattr(self.catalog, name)))

    def counted(self, read: Callable[[object], Awaitable[object]]) -> object:
        def counting(key: object) -> Awaitable[object]:
            self.read.append(key)
            return read(key)

        return counting

    def test_a_path_that_is_new_is_looked_for_once(self) -> None:
        """The transaction that records it finds out whether path or NAR are recorded already."""
        self.served()
        self.assertEqual(self.read, [self.digest])

    def test_a_path_that_was_recorded_meanwhile_keeps_its_signatures(self) -> None:
        """Another replica records it while the upstream is asked; then its rows are read."""
        add = self.catalog.add_new_narinfo
        theirs = Signature("theirs-1", bytes(64))

        async def late(entry: NarInfoEntry, nar: NarRecord, *rest: Any) -> bool:
            signatures = (*entry.narinfo.signatures, theirs)
            there = evolve(entry, narinfo=evolve(entry.narinfo, signatures=signatures))
            await self.catalog.add_narinfo(there, nar)
            return await add(entry, nar, *rest)

        self.patch(self.catalog, "add_new_narinfo", late)
        self.assertIn(str(theirs).encode(), self.served().text)

    def test_a_path_that_is_removed_meanwhile_is_not_remembered(self) -> None:
        """A client removes it for ever just after it was recorded; the next client gets 404."""
        add = self.catalog.add_narinfo

        async def removed(entry: NarInfoEntry, nar: NarRecord) -> None:
            await add(entry, nar)
            await self.catalog.forget_narinfo(entry.digest)
            self.board.narinfo_changed(entry.digest)

        async def never_new(*_: object) -> bool:
            return False

        self.patch(self.catalog, "add_new_narinfo", never_new)
        self.patch(self.catalog, "add_narinfo", removed)
        self.served()
        self.assertIsNone(self.memory.get(self.digest))

    def test_a_full_disk_hides_nothing_that_is_stored(self) -> None:
        """A narinfo that cannot be written has the hash of the file that is stored."""
        self.served()
        self.store_it()
        self.catalog.entries.clear()
        self.memory.clear()
        other = sample("other").narinfo.file_hash
        self.origin.add(self.sample.altered(file_hash=other))
        self.catalog.failing_writes = StorageFull("no room")
        self.assertIn(f"FileHash: {self.sample.narinfo.file_hash}".encode(), self.served().text)
