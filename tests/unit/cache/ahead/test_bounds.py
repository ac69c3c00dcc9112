"""Bounds of fetching ahead, and the counts of uses."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.cache.ahead.prefetch import JOBS_PER_TURN
from ncps.cache.ahead.rules import ALL, NARINFO
from ncps.cache.ahead.walk import IDLE_S
from ncps.cache.answers import Outcome
from ncps.errors import Unavailable
from ncps.ports.catalog import NEVER_ASKED_FOR
from tests.fakes.samples import Sample, sample
from tests.fakes.upstream import Script
from tests.unit.cache.ahead.rig import RULES, AheadCase, chain, referring


class BoundTests(AheadCase):
    def many(self, count: int, size: int = 5_000) -> tuple[Sample, list[Sample]]:
        leaves = [sample(f"leaf{n}", size=size) for n in range(count)]
        root = referring(sample("root", size=size), leaves)
        self.origin.add(root, *leaves)
        return root, leaves

    def begin(self, **rules: Any) -> None:
        self.ahead = evolve(RULES, **rules)
        self.restart()

    def test_questions_in_a_minute(self) -> None:
        self.begin(questions=3)
        root, _ = self.many(10)
        self.ask(root)
        self.assertEqual(1 + 3, len(self.narinfos_asked()))
        self.assertEqual(7, self.dropped["allowance"])

    def test_bytes_in_a_minute(self) -> None:
        """NARs that do not fit are dropped; a minute later others are fetched."""
        self.begin(size=12_000)
        root, _ = self.many(5)
        self.ask(root)
        self.assertEqual(2, len(self.nars_asked()))
        self.assertEqual(4, self.dropped["allowance"])
        self.clock.advance(61)
        other = sample("other", size=5_000)
        self.origin.add(other)
        self.ask(other)
        self.assertEqual(3, len(self.nars_asked()))

    def told(self, **facts: Any) -> Sample:
        """Return a leaf with a file of 40,000 bytes, about which its narinfo says other facts."""
        leaf = sample("large", size=40_000, compression="none").altered(**facts)
        root = referring(sample("root", size=1_000), [leaf])
        self.origin.add(root, leaf)
        self.ask(root)
        return leaf

    def test_file_that_is_larger_than_its_narinfo_says(self) -> None:
        """The limits count the size in the narinfo, so no other file is fetched ahead."""
        for total in (None, 0):  # with a Content-Length, and without one
            with self.subTest(total=total):
                self.setUp()
                self.begin(policy=ALL, small_size=0)
                self.origin.otherwise = Script(total=total, chunk=1_000)
                leaf = self.told(compression="xz", file_size=2_000, file_hash=None)
                self.assertIn(leaf.url, self.nars_asked())
                self.assertLess(self.origin.sent, 1_500 + 3_000)
                self.assertEqual(0, self.core.ahead.pending)
                self.assertEqual(1, len(self.store.objects), "that of the root")

    def test_file_that_is_larger_than_its_nar(self) -> None:
        """Without FileSize, NarSize is the limit."""
        self.begin(policy=ALL, small_size=0)
        self.origin.otherwise = Script(chunk=1_000)
        leaf = self.told(compression="xz", file_size=None, file_hash=None, nar_size=2_000)
        self.assertIn(leaf.url, self.nars_asked())
        self.assertLess(self.origin.sent, 1_500 + 3_000)
        self.assertEqual(0, self.core.ahead.pending)

    def understated(self) -> tuple[Sample, Sample]:
        """Return a root and its leaf, whose narinfo says a FileSize that is too small."""
        leaf = sample("large", size=40_000)
        false = leaf.altered(file_size=2_000)
        root = referring(sample("root", size=1_000), [false])
        self.origin.add(root, false)
        return root, leaf

    def test_small_file_that_is_larger_than_its_narinfo_says(self) -> None:
        """It is fetched whole, and not a second time for a client."""
        self.begin()
        root, leaf = self.understated()
        self.ask(root)
        self.assertEqual(leaf.file, self.download(leaf.key))
        self.assertEqual(1, self.nars_asked().count(leaf.url))

    def test_client_gets_a_file_that_is_larger_than_its_narinfo_says(self) -> None:
        """It may join the guess at any time."""
        self.begin()
        root, leaf = self.understated()
        self.ask(root, leads_on=False)
        self.origin.otherwise = Script(hold=True)
        self.lead_on(root)
        early = self.start(self.cache.nar(leaf.key))
        self.origin.otherwise = Script()
        self.release()
        self.successResultOf(early)
        self.assertEqual(leaf.file, self.download(leaf.key))

    def test_queue(self) -> None:
        self.begin(max_queue=3, policy=NARINFO)
        root, _ = self.many(10)
        self.ask(root)
        self.assertEqual(7, self.dropped["queue"])
        self.assertEqual(1 + 3, len(self.narinfos_asked()))

    def test_at_once(self) -> None:
        """The rule bounds the questions; a client's question has a place besides."""
        self.begin(at_once=2, policy=NARINFO)
        root, leaves = self.many(10)
        self.ask(root, leads_on=False)
        self.origin.is_silent = self.mirror.is_silent = True
        self.lead_on(root)
        self.assertEqual(1 + 2, len(self.narinfos_asked()))
        client = self.start(self.cache.narinfo(leaves[9].digest))
        self.assertEqual(1 + 3, len(self.narinfos_asked()))
        self.release()
        self.successResultOf(client)

    def test_walk_that_no_client_follows_ends(self) -> None:
        self.begin(at_once=2, policy=NARINFO)
        root, _ = self.many(10)
        self.ask(root, leads_on=False)
        self.origin.is_silent = self.mirror.is_silent = True
        self.lead_on(root)
        self.clock.advance(IDLE_S + 1)
        self.release()
        self.assertEqual(8, self.dropped["idle"])
        self.assertEqual(0, self.core.ahead.pending)

    def test_a_walk_that_fails_again_and_again_ends(self) -> None:
        """Failures of an upstream end the walk; a client that gets an answer begins a new one."""
        self.begin(at_once=1, policy=NARINFO)
        root, leaves = self.many(10)
        for leaf in leaves[:4]:
            self.origin.narinfos[leaf.digest] = Unavailable("status 500")
        self.ask(root)
        self.assertEqual(7, self.dropped["failures"])
        self.assertEqual(0, self.core.ahead.pending)
        self.assertEqual(Outcome.MISS, self.ask(leaves[9]))

    def test_upstream_that_wants_a_pause_gets_no_guesses(self) -> None:
        """Clients still ask it; after the pause, guesses do so, too."""
        self.begin(at_once=1, policy=NARINFO)
        root, leaves = self.many(10)
        others = [sample(f"other{n}", size=5_000) for n in range(2)]
        self.origin.add(others[0], referring(others[1], others[:1]))
        for leaf in leaves:
            self.origin.narinfos[leaf.digest] = Unavailable("status 429", retry_after=30.0)
        self.ask(root)
        self.assertEqual(1 + 1, len(self.origin.asked("narinfo")))
        self.origin.add(*leaves)
        self.assertEqual(Outcome.MISS, self.ask(leaves[9]))
        self.assertEqual(2 + 1, len(self.origin.asked("narinfo")))
        self.clock.advance(31)
        self.assertEqual(Outcome.MISS, self.ask(others[1]))
        self.assertEqual(3 + 2, len(self.origin.asked("narinfo")))

    def test_store_that_is_nearly_full_takes_no_nar(self) -> None:
        self.begin(most_stored=12_000)
        root, _ = self.many(5)
        self.ask(root)
        self.assertLess(len(self.nars_asked()), 3)
        self.assertGreater(self.dropped["room"], 3)

    def test_places_of_downloads_are_left_to_clients(self) -> None:
        """Guesses that wait for the catalog at the same time count each other."""
        self.most_downloads = 4
        self.begin(at_once=8, most_stored=10**9)
        gate: Deferred[None] = Deferred()

        async def stored_bytes() -> int:
            await gate
            return 0

        self.patch(self.catalog, "stored_bytes", stored_bytes)
        root, _ = self.many(6)
        self.ask(root)
        self.origin.otherwise = self.mirror.otherwise = Script(hold=True)
        gate.callback(None)
        self.assertEqual(2, self.admission.running)
        self.assertEqual(5, self.dropped["room"])
        self.release()
        self.clock.advance(0)

    def test_the_only_place_of_a_download_is_a_clients(self) -> None:
        self.most_downloads = 1
        self.begin()
        root, _ = self.many(1)
        self.ask(root)
        self.assertEqual([], self.nars_asked())

    def test_path_that_was_removed_while_its_nar_waited(self) -> None:
        """It does not come back unless a client asks for it."""
        self.begin(at_once=1)
        root, (leaf,) = self.many(1)
        self.origin.otherwise = Script(hold=True)
        self.ask(root)  # its NAR keeps the place
        self.get(self.catalog.forget_nar(leaf.key))
        self.board.narinfo_changed(leaf.digest)
        self.release()
        self.clock.advance(0)
        self.assertEqual([root.url], self.nars_asked())
        self.assertNotIn(leaf.key, self.catalog.records)

    def test_others_get_their_turn_between_paths_that_are_here(self) -> None:
        """Jobs for such paths may end in the turn of the reactor that begins them."""
        root, leaves = self.many(JOBS_PER_TURN * 3)
        self.learn(*leaves)
        for leaf in leaves:
            self.download(leaf.key)
        self.begin()
        looks: list[str] = []
        fetch_ahead = self.narinfos.fetch_ahead

        async def look(digest: str) -> Any:
            looks.append(digest)
            return await fetch_ahead(digest)

        self.patch(self.narinfos, "fetch_ahead", look)
        self.get(self.cache.narinfo(root.digest, leads_on=True))
        seen: list[int] = []
        self.clock.callLater(0, lambda: seen.append(len(looks)))
        self.clock.advance(0)
        self.assertEqual(([JOBS_PER_TURN], JOBS_PER_TURN * 3), (seen, len(looks)))

    def test_disk_that_is_nearly_full_takes_no_nar(self) -> None:
        self.begin()
        self.free = 10_000_000
        root, _ = self.many(5)
        self.ask(root)
        self.assertEqual([], self.nars_asked())
        self.assertEqual(6, self.dropped["room"])


class UseTests(AheadCase):
    def setUp(self) -> None:
        super().setUp()
        self.paths = chain(2)
        self.origin.add(*self.paths)
        self.ask(self.paths[0])

    def test_nar_that_no_client_has_asked_for_says_so(self) -> None:
        self.assertEqual(
            [NEVER_ASKED_FOR] * 2,
            [self.catalog.records[one.key].last_used_at for one in self.paths],
        )

    def test_use_is_counted_and_noted(self) -> None:
        self.get(self.cache.nar(self.paths[1].key))
        self.get(self.uses.flush())
        self.assertEqual(1, self.used["nar"])
        used = self.catalog.records[self.paths[1].key].last_used_at
        self.assertIsNotNone(used)
        self.assertNotEqual(NEVER_ASKED_FOR, used)
        self.get(self.cache.nar(self.paths[1].key))
        self.assertEqual(1, self.used["nar"])

    def test_answers_that_lay_ready_are_uses(self) -> None:
        self.cache.repeated([self.paths[1].digest])
        self.cache.nars_repeated([self.paths[1].key])
        self.assertEqual({"narinfo": 1, "nar": 1}, self.used)

    def test_narinfo_that_another_process_fetches_meanwhile_is_not_counted(self) -> None:
        """That process counts it."""
        first, second = chain(2, name="other")
        self.origin.add(first, second)
        self.learn(second)
        entry = self.catalog.entries.pop(second.digest)
        self.board.narinfo_changed(second.digest)
        before, lease = self.fetched["narinfo"], f"download:narinfo:{second.digest}"
        other = self.get(self.leases.take(lease))
        self.ask(first)
        self.catalog.entries[second.digest] = entry
        self.get(other.release())
        self.clock.advance(0)
        self.assertEqual(0, self.core.ahead.pending)
        self.assertEqual(1, self.narinfos_asked().count(second.digest))
        self.assertEqual(before, self.fetched["narinfo"])
