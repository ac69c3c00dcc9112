"""Stored bytes that are lost or damaged are fetched again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ncps.cache.answers import Outcome
from ncps.errors import Corrupt, NotFound, StorageFull, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import Body
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.client import Client
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.nar.rig import NarsCase


class UnknownPathTests(NarsCase):
    """A NAR that was fetched by the hash in its name; no path of it is known here."""

    def test_file_that_was_looked_into_is_fetched_again(self) -> None:
        """Its NarHash, which is known by then, leads to no upstream; its name does."""
        for one in (self.sample, sample("plain", 1000, "none")):
            self.origin.add(one)
            self.catalog = MemoryCatalog()
            self.restart()
            self.download(one.conventional)
            self.get(self.verifier.verify(self.catalog.records[one.conventional]))
            self.assertIsNotNone(self.catalog.records[one.conventional].nar_hash)
            self.store.objects.clear()
            self.assertEqual(one.file, self.download(one.conventional))


class HealingTests(NarsCase):
    def setUp(self) -> None:
        super().setUp()
        self.download(self.key)
        self.origin.log.clear()

    def test_missing_bytes_are_fetched_again(self) -> None:
        """A file that somebody deleted is fetched again before any header is sent."""
        self.store.objects.clear()
        _, client = self.successResultOf(self.open(self.key, 5, 500))
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file[5:500], client.data)
        self.assertEqual([0], self.asked())
        self.assertStored(published=1)

    def test_bytes_of_wrong_size_are_set_aside_and_fetched_again(self) -> None:
        """A truncated file is quarantined and replaced."""
        self.store.objects[self.key] = b"truncated"
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual([(self.key, b"truncated")], self.store.quarantined)
        self.assertStored(published=1)

    def test_bytes_that_cannot_be_replaced(self) -> None:
        """If the NAR cannot be fetched again, the client gets an error status."""
        self.store.objects.clear()
        self.origin.is_away = True
        opening = self.open(self.key)
        self.clock.advance(1)
        self.failureResultOf(opening, Unavailable)
        self.assertFalse(self.record().is_stored)

    def test_many_clients_heal_once(self) -> None:
        """All clients that find the bytes missing share one fetch."""
        self.store.objects.clear()
        self.script(Script(hold=True))
        opening = [self.open(self.key) for _ in range(3)]
        self.origin.release()
        for one in opening:
            _, client = self.successResultOf(one)
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)
        self.assertEqual([0], self.asked())

    def test_healed_by_somebody_else_meanwhile(self) -> None:
        """A client with an old record does not undo a healing."""
        nar = self.get(self.nars.open(self.key))
        self.store.objects.clear()
        self.clock.advance(5)
        self.download(self.key)
        healed_at = self.record().stored_at
        opened, troubles = self.store.open, [NotFound("not there yet")]

        async def open_(*args: Any, **options: Any) -> Body:
            if troubles:
                raise troubles.pop()
            return await opened(*args, **options)

        self.patch(self.store, "open", open_)
        client = Client(self.get(nar.body(0, 10)))
        self.assertEqual(self.sample.file[:10], client.data)
        self.assertEqual((healed_at, [0]), (self.record().stored_at, self.asked()))

    def test_quarantine_that_fails_does_not_stop_the_healing(self) -> None:
        """On a read-only store damaged bytes stay, but clients get right ones."""
        self.store.objects[self.key] = b"truncated"

        async def quarantine(_: NarKey) -> bool:
            raise StorageFull("read-only")

        self.patch(self.store, "quarantine", quarantine)
        self.assertEqual(self.sample.file, self.download(self.key))

    def test_store_that_is_unsure_heals_nothing(self) -> None:
        """A store that does not answer has not lost anything."""
        self.store.failing = Unavailable("EIO")
        self.failureResultOf(self.open(self.key), Unavailable)
        self.assertTrue(self.record().is_stored)
        self.assertEqual([], self.asked())

    def test_head_heals_too(self) -> None:
        """HEAD promises only what GET can keep."""
        self.store.objects.clear()
        self.assertEqual(Outcome.HIT, self.get(self.nars.stat(self.key))[1])
        self.assertStored(published=1)

    def test_bytes_that_cannot_be_read_are_set_aside_and_fetched_again(self) -> None:
        """Damage that is found during a reading is healed, too, once for all clients."""
        opened = [self.get(self.nars.open(self.key)) for _ in range(2)]
        for nar in opened:
            self.assertTrue(self.get(nar.spoiled(Corrupt("Input/output error"))))
            self.assertFalse(self.record().is_stored)
        self.assertEqual([(self.key, self.sample.file)], self.store.quarantined)
        self.clock.advance(5)
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertStored(published=1)
        self.assertTrue(self.get(opened[0].spoiled(Corrupt("Input/output error"))))
        self.assertEqual(1, len(self.store.quarantined), "what was fetched since is another file")
        self.assertStored(published=1)

    def test_healing_outlives_the_client_that_found_it(self) -> None:
        """The healing continues without the client that a bad disk cuts off."""
        nar = self.get(self.nars.open(self.key))
        gate: Deferred[bool] = Deferred()
        quarantine = self.store.quarantine

        async def slowly(key: NarKey) -> bool:
            await gate
            return await quarantine(key)

        self.patch(self.store, "quarantine", slowly)
        telling = self.start(nar.spoiled(Corrupt("Input/output error")))
        telling.addErrback(lambda _: None)
        telling.cancel()
        gate.callback(True)
        self.assertFalse(self.record().is_stored)

    def test_last_use_is_noted(self) -> None:
        """The time of a NAR's last use is written to the catalog."""
        self.clock.advance(500)
        self.download(self.key)
        self.get(self.uses.flush())
        used = self.record().last_used_at
        assert used is not None
        self.assertEqual(self.clock.seconds(), used.timestamp())
