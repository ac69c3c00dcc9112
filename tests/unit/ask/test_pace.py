"""Sources that send too slowly are left if another source has the file."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.task import deferLater

from ncps.ask.opening import paced
from ncps.errors import NotFound, Unavailable, Unconfirmed
from ncps.settings.schema.upstream import UpstreamsSettings
from tests.fakes.client import Client
from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase

SIZE = 300_000
HALF = 150_000
TRICKLE = Script(trickles_from=HALF, chunk=100)
WINDOW_S = UpstreamsSettings().min_receive_window_s


class PaceCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.key = self.sample.key
        for upstream in self.scripted:
            upstream.add(self.sample)
        self.learn(self.sample)

    def trickle(self, seconds: float) -> None:
        """Let one chunk arrive each second."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            for upstream in self.scripted:
                upstream.release()

    def asked(self, number: int) -> list[int]:
        return [offset for _, offset in self.scripted[number].asked("nar")]

    def assertWhole(self, client: Client) -> None:
        self.successResultOf(client.done)
        self.assertEqual(self.sample.file, client.data)


class TrickleTests(PaceCase):
    def test_trickle_is_left_for_another_source(self) -> None:
        """The rest comes from the other source, and the health of the slow one notes that."""
        self.origin.scripts.append(TRICKLE)
        client = self.client(self.key)
        self.trickle(2 * WINDOW_S - 2)  # at first it sent fast
        self.assertEqual(([0], []), (self.asked(0), self.asked(1)))
        self.trickle(4)
        self.assertWhole(client)
        (offset,) = self.asked(1)
        self.assertEqual(([0], True), (self.asked(0), HALF < offset < HALF + 2 * WINDOW_S * 110))
        self.assertIn("bytes in", self.upstreams.candidates[0].health.last_error)

    def test_trickle_goes_on_alone(self) -> None:
        """If no other upstream has the file, the slow source continues, and is not asked again."""
        self.mirror.narinfos[self.sample.digest] = NotFound("status 404")
        self.origin.scripts.append(TRICKLE)
        client = self.client(self.key)
        self.trickle(3 * WINDOW_S)
        self.assertNoResult(client.done)
        self.assertEqual(([0], []), (self.asked(0), self.asked(1)))
        self.trickle(SIZE / 100)
        self.assertWhole(client)

    def test_two_that_trickle_are_tried_once_each(self) -> None:
        """The last of two slow sources continues: another change would cost more than it brings."""
        self.origin.otherwise = self.mirror.otherwise = TRICKLE
        client = self.client(self.key)
        self.trickle(10 * WINDOW_S)
        self.assertNoResult(client.done)
        self.assertEqual((1, 1), (len(self.asked(0)), len(self.asked(1))))
        self.trickle(SIZE / 100)
        self.assertWhole(client)

    def test_other_source_fails(self) -> None:
        """The slow one is asked for the rest again, and stays."""
        self.origin.otherwise = TRICKLE
        self.mirror.otherwise = Script(error=Unavailable("status 500", kind="status"))
        client = self.client(self.key)
        self.trickle(2 * WINDOW_S + SIZE / 100)
        self.assertWhole(client)
        self.assertEqual(2, len(self.asked(0)))

    def test_slow_reader_is_not_a_slow_source(self) -> None:
        """Time in which the client does not read does not count."""
        told: list[str] = []

        async def leave(reason: str) -> bool:
            told.append(reason)
            return True

        async def read() -> bytes:
            data = b""
            body = await self.origin.open_nar(self.sample.url)
            passed = paced(body, self.clock, UpstreamsSettings(), leave)
            async for chunk in passed:
                data += chunk
                await deferLater(self.clock, WINDOW_S)
            passed.close()
            return data

        reading = self.start(read())
        for _ in range(10):
            self.clock.advance(WINDOW_S)
        self.assertEqual(self.sample.file, self.successResultOf(reading))
        self.assertEqual([], told)

    def test_what_keeps_the_pace_is_kept(self) -> None:
        """A connection of modest rate is not too slow."""
        self.origin.scripts.append(Script(trickles_from=0, chunk=1500))
        client = self.client(self.key)
        self.trickle(SIZE / 1500 + 2)
        self.assertWhole(client)
        self.assertEqual([], self.asked(1))


class UnconfirmedEndTests(PaceCase):
    """Bodies of unknown size that end with their connection."""

    def setUp(self) -> None:
        super().setUp()
        self.ends = Script(total=0, failure=Unconfirmed("the connection ended", kind="broken"))

    def forget(self, **fields: object) -> None:
        """Let the narinfo say less."""
        record = self.catalog.records[self.key]
        assert record is not None
        self.catalog.records[self.key] = evolve(record, file_size=None, **fields)  # type: ignore[arg-type]
        self.memory.clear()

    def test_file_hash_confirms_the_end(self) -> None:
        """A file with the right hash is complete: it is published, and requested once."""
        self.forget()
        self.origin.otherwise = self.ends
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(({"published": 1}, [0]), (self.ended, self.asked(0)))
        self.assertTrue(self.upstreams.candidates[0].health.is_healthy)

    def test_nar_confirms_the_end(self) -> None:
        """A file without FileHash is complete if its NAR has the NarHash."""
        self.forget(file_hash=None)
        self.origin.otherwise = self.ends
        self.assertEqual(self.sample.file, self.download(self.key))
        self.assertEqual(({"published": 1}, [0]), (self.ended, self.asked(0)))

    def test_early_end_has_broken_off(self) -> None:
        """An incomplete file is requested again, from its last byte, and is not wrong."""
        for fields in ({}, {"file_hash": None}):
            self.forget(**fields)
            early = Script(total=0, end_at=HALF, failure=self.ends.failure)
            self.origin.scripts.append(early)
            self.origin.otherwise = self.ends
            before = len(self.asked(0))
            client = self.client(self.key)
            self.clock.advance(1)
            self.assertWhole(client)
            self.assertEqual([0, HALF], self.asked(0)[before:])
            self.store.objects.clear()
            self.learn_anew()

    def learn_anew(self) -> None:
        self.catalog.records.clear()
        self.catalog.entries.clear()
        self.restart()
        self.learn(self.sample)
