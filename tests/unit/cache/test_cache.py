"""PullThrough: the core as the web layer sees it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ask.health import FAILURES
from ncps.cache.answers import Outcome
from ncps.cache.cache import PullThrough
from ncps.errors import NotFound, Unavailable
from tests.fakes.samples import OWN_KEY, sample
from tests.fakes.stores import MemoryConfigStore
from tests.unit.cache.rig import CoreCase


class PullThroughTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = MemoryConfigStore()
        self.cache = PullThrough(
            self.world,
            self.core,
            public_key=OWN_KEY.public,
            config=self.config,
            troubles={"clock": lambda: self.trouble_with_clock},
        )
        self.trouble_with_clock = ""

    def test_verbs_are_passed_on(self) -> None:
        """The web layer gets narinfos and NARs."""
        one = sample(size=1000)
        self.origin.add(one)
        self.assertEqual(str(OWN_KEY.public), self.cache.public_key)
        self.assertIn(one.key.url.encode(), self.get(self.cache.narinfo(one.digest)).text)
        self.assertIs(Outcome.MISS, self.get(self.cache.stat_nar(one.key))[1])
        nar = self.get(self.cache.nar(one.key))
        self.get(nar.body()).close()
        nar.close()

    def test_names_of_other_servers(self) -> None:
        """A NAR is found by its store path; the name of another file is refused."""
        plain, packed = sample("plain", 1000, "none"), sample("packed", 2000, "xz")
        attic = sample("attic", 1500, "zstd")
        attic = attic.altered(url=f"nar/{attic.digest}.nar")
        for one in (plain, packed, attic):
            self.origin.add(one)
        named = packed.conventional
        for one, name in (
            (plain, f"{plain.digest}-{plain.key.name}.nar"),
            (plain, f"{plain.digest}_{plain.key.name}.nar"),
            (packed, f"{packed.digest}-{packed.key.name}.nar.xz"),
            (packed, f"{packed.digest}-{named.name}.nar.xz"),
            (attic, f"{attic.digest}.nar"),
        ):
            key = self.get(self.cache.key_of(one.digest, name))
            narinfo = self.get(self.cache.narinfo(one.digest)).text.decode()
            self.assertIn(f"URL: {key.url}\n", narinfo)
        for one, name in (
            (plain, f"{plain.digest}-{packed.key.name}.nar"),
            (plain, f"{plain.digest}.nar"),
            (plain, f"{plain.digest}-{plain.key.name}.nar.xz"),
            (packed, f"{packed.digest}-{packed.key.name}.nar"),
            (packed, f"{packed.digest}-{packed.key.name}.nar.odd"),
        ):
            self.refused(self.cache.key_of(one.digest, name), NotFound)
        self.refused(self.cache.key_of("0" * 32, f"{'0' * 32}.nar"), NotFound)

    def test_repeating_is_passed_on(self) -> None:
        """If the web layer repeats a narinfo, the core keeps it as used, and can drop it."""
        one = sample(size=1000)
        self.origin.add(one)
        forgotten: list[str] = []
        self.cache.watch(forgotten.append)
        for _ in range(2):
            found = self.get(self.cache.narinfo(one.digest))
        self.assertIsNotNone(found.may_repeat)
        self.cache.repeated([one.digest])
        self.narinfos.changed(one.key)
        self.assertEqual([one.digest], forgotten)

    def test_readiness(self) -> None:
        """Database and storage are needed; other troubles are only reported."""
        ready = self.get(self.cache.readiness())
        self.assertTrue(ready.is_ready)
        self.assertNotIn("clock", ready.parts)
        self.assertEqual({"database": 0.0, "storage": 0.0}, ready.ages)
        for _ in range(FAILURES):
            self.upstreams.candidates[0].health.failed("refused")
        ready = self.get(self.cache.readiness())
        self.assertTrue(ready.is_ready)
        self.assertEqual("away: a.example.org (refused)", ready.parts["upstreams"])
        self.trouble_with_clock = "a minute behind"
        ready = self.get(self.cache.readiness())
        self.assertEqual((True, "a minute behind"), (ready.is_ready, ready.parts["clock"]))
        for part in (self.catalog, self.config):
            part.failing = Unavailable("broken")
            self.assertFalse(self.get(self.cache.readiness()).is_ready)
            part.failing = None

    def test_waiting_client_that_leaves(self) -> None:
        """A client that leaves while its narinfo is fetched causes no further cost."""
        self.origin.is_silent = self.mirror.is_silent = True
        asking = Deferred.fromCoroutine(self.cache.narinfo("0" * 32))
        asking.addErrback(lambda _: None)
        asking.cancel()
        self.assertEqual(2, len(self.tasks.names))
        self.origin.release()
        self.clock.advance(1)
        self.mirror.release()
