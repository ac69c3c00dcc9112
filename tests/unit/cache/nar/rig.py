"""A core that knows one narinfo, whose NAR the first upstream has."""

from __future__ import annotations

from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord
from tests.fakes.client import Client
from tests.fakes.samples import sample
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.unit.cache.rig import CoreCase

SIZE = 300_000


class NarsCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.sample = sample(size=SIZE)
        self.origin.add(self.sample)
        self.key = self.sample.key
        self.learn(self.sample)

    def both(self) -> None:
        """Let the mirror have the same file."""
        self.mirror.add(self.sample)

    def script(self, *scripts: Script) -> None:
        self.origin.scripts.extend(scripts)

    def asked(self, upstream: ScriptedUpstream | None = None) -> list[int]:
        """Offsets of the NAR asked for."""
        return [offset for _, offset in (upstream or self.origin).asked("nar")]

    def begun(
        self, key: NarKey, start: int = 0, stop: int | None = None, *, script: Script
    ) -> Client:
        """Return a client that is there when the first head arrives."""
        self.origin.scripts.appendleft(script)
        opening = self.open(key, start, stop)
        self.assertNoResult(opening)
        self.origin.release()
        _, client = self.successResultOf(opening)
        return client

    def record(self) -> NarRecord:
        record = self.catalog.records[self.key]
        assert record is not None
        return record

    def assertStored(self, **earlier: int) -> None:
        """Check that the last download has stored the NAR.

        :param earlier: how many downloads had ended before, by outcome.
        """
        self.assertEqual(self.sample.file, self.store.objects[self.key])
        self.assertTrue(self.record().is_stored)
        published = earlier.get("published", 0) + 1
        self.assertEqual({**earlier, "published": published}, self.ended)

    def assertNotStored(self) -> None:
        self.assertEqual({}, self.store.objects)
        self.assertFalse(any(record.is_stored for record in self.catalog.records.values()))
