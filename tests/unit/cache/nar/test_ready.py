"""Ready: stored NARs that may be sent again without a question to the catalog."""

from __future__ import annotations

import os

from attrs import evolve

from ncps.cache.answers import Outcome, ServedNar
from ncps.errors import NotFound
from ncps.nix.narurl import NarKey
from ncps.ports import Notice, Reopen
from tests.fakes.upstream import Script
from tests.unit.cache.nar.rig import NarsCase


class ReadyTests(NarsCase):
    def setUp(self) -> None:
        super().setUp()
        self.changed: list[NarKey | None] = []
        self.nars.ready.watch(self.changed.append)
        self.download(self.key)
        self.assertStored()
        self.changed.clear()

    def opened(self) -> ServedNar:
        """Return the NAR as a client gets it that asks now."""
        return self.get(self.nars.open(self.key))

    def reopener(self) -> Reopen:
        reopen = self.opened().reopener()
        assert reopen is not None
        return reopen

    def content(self, reopen: Reopen) -> bytes | None:
        """Return the contents of the opened file; None if there is none."""
        file = reopen()
        if file is None:
            return None
        buffer = memoryview(bytearray(len(self.sample.file) + 1))
        try:
            return bytes(buffer[: file.read_into(buffer, 0)])
        finally:
            os.close(file.fd)

    def test_stored_nar_is_ready_again_and_again(self) -> None:
        """Each time its file is opened again."""
        reopen = self.reopener()
        for _ in range(2):
            self.assertEqual(self.sample.file, self.content(reopen))

    def test_uses_are_noted(self) -> None:
        """A NAR that is sent again counts as used, like one that is asked for."""
        times = []
        for _ in range(2):
            self.clock.advance(1000)
            self.nars.ready.repeated([self.key])
            self.get(self.uses.flush())
            last_used = self.record().last_used_at
            assert last_used is not None
            times.append(last_used.timestamp())
        self.assertEqual(1000, times[1] - times[0])

    def test_bytes_that_are_gone_or_others_are_asked_for(self) -> None:
        """Also if no notice has arrived."""
        reopen = self.reopener()
        data = self.store.objects.pop(self.key)
        self.assertIsNone(self.content(reopen))
        self.store.put(self.key, data[:-1])
        self.assertIsNone(self.content(reopen))
        self.store.put(self.key, data[::-1])
        self.assertIsNone(self.content(reopen))
        self.store.put(self.key, data)
        self.assertEqual(data, self.content(reopen))

    def test_each_change_is_told(self) -> None:
        """Changes here, by another process, and by a process whose notices were lost."""
        self.narinfos.changed(self.key)
        self.board.heard(Notice("nar", self.key.file_name))
        self.board.heard(Notice("gap"))
        self.get(self.board.expire())
        self.assertEqual([self.key, self.key, None, None], self.changed)

    def test_loss_is_told(self) -> None:
        """A NAR that is set aside is not ready from that moment on."""
        self.get(self.verifier.healing.heal(self.record(), NotFound("lost")))
        self.assertIn(self.key, self.changed)

    def test_change_while_it_was_opened(self) -> None:
        """An answer that is older than a change is not kept."""
        nar = self.opened()
        self.narinfos.changed(self.key)
        self.assertIsNone(nar.reopener())
        self.assertIsNotNone(self.opened().reopener())

    def test_only_what_the_row_describes_in_full(self) -> None:
        """Without a tag, with another size or with other bytes than the URL's, each client asks."""
        record = self.record()
        for other in (
            evolve(record, stored_tag=""),
            evolve(record, stored_size=None),
            evolve(record, file_size=len(self.sample.file) + 1),
            evolve(record, encoding="zstd", compression="none"),
        ):
            ready = self.nars.ready
            self.assertIsNone(ready.reopener(ready.memory.changes, other))
            self.assertIsNotNone(ready.reopener(ready.memory.changes, record))

    def test_nar_that_arrives_is_not_ready(self) -> None:
        """While a NAR is fetched again, clients follow the download."""
        reopen = self.reopener()
        self.script(Script(stall_at=1000))
        data = self.store.objects.pop(self.key)
        client = self.client(self.key)
        self.store.put(self.key, data)
        self.assertTrue(self.nars.is_arriving(self.key))
        self.assertIsNone(self.content(reopen))
        self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, self.content(self.reopener()))

    def test_hearsay_is_not_ready(self) -> None:
        """Bytes from an upstream that is no longer ours are verified first."""
        ready = self.nars.ready
        reopen = ready.reopener(ready.memory.changes, evolve(self.record(), verified_at=None))
        assert reopen is not None
        names, self.upstreams.names = self.upstreams.names, {}
        self.assertIsNone(self.content(reopen))
        self.upstreams.names = names
        self.assertIsNotNone(self.content(reopen))

    def test_miss_is_not_ready(self) -> None:
        """Only stored bytes are ready."""
        self.narinfos.changed(self.key)
        self.get(self.catalog.mark_missing(self.key))
        self.store.objects.clear()
        nar, client = self.successResultOf(self.open(self.key))
        self.successResultOf(client.done)
        self.assertIs(Outcome.MISS, nar.outcome)
        self.assertIsNone(nar.reopener())
