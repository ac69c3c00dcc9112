"""Listings: made from stored NARs, kept by NarHash, or passed on."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from ncps.cache.answers import Absent
from ncps.cache.extras import listings
from ncps.cache.extras.kept import ExtraBounds
from ncps.errors import Corrupt, Malformed, NotFound, Unavailable
from ncps.ports import ExtraKey
from tests.fakes.samples import Sample, sample
from tests.fakes.threads import HeldThreads
from tests.nars import Tree
from tests.unit.cache.extras.rig import BUILD_ID, MEMBER, TREE, ExtrasCase, packed

SMALL: Tree = {b"bin": {b"x": ("executable", b"#!x\n")}}
LISTING = (
    b'{"root":{"entries":{"bin":{"entries":{"x":{"executable":true,"narOffset":400,"size":4,'
    b'"type":"regular"}},"type":"directory"}},"type":"directory"},"version":1}'
)
OTHER = b'{"version":1,"root":{"type":"regular","size":1,"narOffset":96}}'


class ListingCase(ExtrasCase):
    def listing(self, one: Sample) -> tuple[bytes, str]:
        return self.get(self.read(self.extras.listing(one.digest)))


class MadeListingTests(ListingCase):
    def test_listing_is_made_from_the_stored_nar(self) -> None:
        """From each compression; it is kept by NarHash, and no upstream is asked for it."""
        for compression in ("xz", "zstd", "none", "bzip2", "br"):
            self.kept.objects.clear()
            one = packed(SMALL, f"{compression}-1.0", compression)
            self.store_nar(one)
            self.origin.texts[f"{one.digest}.ls"] = OTHER
            key = ExtraKey("listing", one.narinfo.nar_hash.nix32)
            self.assertEqual((LISTING, "miss"), self.listing(one))
            self.assertEqual({key: LISTING}, self.kept.objects)
            self.assertEqual((LISTING, "hit"), self.listing(one))
        self.assertEqual([], self.origin.asked("text"))

    def test_listing_is_made_without_upstreams(self) -> None:
        """Below /upload, and when all upstreams are away, a stored path has its listing."""
        one = packed(SMALL)
        self.store_nar(one)
        self.origin.is_away = self.mirror.is_away = True
        self.assertEqual(LISTING, self.listing(one)[0])
        self.kept.objects.clear()
        local = self.extras.listing(one.digest, is_local=True)
        self.assertEqual(LISTING, self.get(self.read(local))[0])

    def test_nar_is_read_once_for_all_clients(self) -> None:
        """Clients that ask at the same time wait for one reading."""
        one = packed(SMALL)
        self.store_nar(one)
        opened = len(self.store.bodies)
        held = HeldThreads()
        self.threads = held
        self.restart()
        clients = [self.start(self.read(self.extras.listing(one.digest))) for _ in range(3)]
        held.release()
        self.assertEqual([LISTING] * 3, [self.successResultOf(one)[0] for one in clients])
        self.assertEqual(1, len(self.store.bodies) - opened)

    def waiting(self, count: int) -> list[Deferred[Any]]:
        """Return clients of one listing that is being made."""
        self.one = packed(SMALL)
        self.store_nar(self.one)
        self.threads = self.held = HeldThreads()
        self.restart()
        return [self.start(self.read(self.extras.listing(self.one.digest))) for _ in range(count)]

    def test_reading_ends_with_the_last_client(self) -> None:
        """It continues while one client waits; else it keeps nothing, and the next restarts it."""
        first, second = self.waiting(2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        names = self.tasks.names
        self.assertEqual(1, len([name for name in names if name.startswith("listing")]))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual([], [name for name in self.tasks.names if name.startswith("listing")])
        self.held.release()
        self.assertEqual({}, self.kept.objects)
        third = self.start(self.read(self.extras.listing(self.one.digest)))
        self.held.release()
        self.assertEqual(LISTING, self.successResultOf(third)[0])

    def test_reading_goes_on_for_a_client_that_was_told_to_come_again(self) -> None:
        """Also if another client comes and leaves in between."""
        (first,) = self.waiting(1)
        self.clock.advance(listings.PATIENCE_S)
        self.failureResultOf(first, Unavailable)
        other = self.start(self.read(self.extras.listing(self.one.digest)))
        other.cancel()
        self.failureResultOf(other, CancelledError)
        self.held.release()
        self.assertEqual([LISTING], list(self.kept.objects.values()))

    def test_nar_that_is_another_one_has_no_listing(self) -> None:
        """A listing of bytes that do not have the NarHash of the narinfo is never shown or kept."""
        one, other = packed(SMALL), packed({b"other": b"file"})
        self.store_nar(one)
        nar = self.get(self.catalog.nar(one.key))
        assert nar is not None
        self.store.put(one.key, other.file)
        tag = self.store.tag(one.key)
        row = evolve(nar, stored_tag=tag, stored_size=len(other.file), file_size=len(other.file))
        self.get(self.catalog.mark_stored(row))
        self.restart()
        self.refused(self.extras.listing(one.digest), Corrupt)
        self.assertEqual({}, self.kept.objects)

    def test_an_invalid_nar_has_no_listing(self) -> None:
        """Bytes without a NAR are an error, not an empty listing."""
        one = sample("garbage")
        self.store_nar(one)
        self.refused(self.extras.listing(one.digest), Corrupt)

    def test_long_listing_is_refused_and_not_made_again(self) -> None:
        """A NAR with very many files is read once for each time that the absence is remembered."""
        self.bounds = ExtraBounds(object_size=50, fetched_size=10**6, uploaded_size=0)
        one = packed(SMALL)
        self.restart()
        self.store_nar(one)
        self.refused(self.extras.listing(one.digest), NotFound)
        opened = len(self.store.bodies)
        self.refused(self.extras.listing(one.digest), NotFound)
        self.assertEqual(opened, len(self.store.bodies))

    def test_listing_that_takes_long_is_504(self) -> None:
        """A client gets an answer within a minute; the listing is made nevertheless."""
        one = packed(SMALL)
        self.store_nar(one)
        held = HeldThreads()
        self.threads = held
        self.restart()
        client = self.start(self.read(self.extras.listing(one.digest)))
        self.clock.advance(listings.PATIENCE_S)
        self.assertTrue(self.failureResultOf(client, Unavailable).value.timed_out)
        held.release()
        self.assertEqual([LISTING], list(self.kept.objects.values()))

    def test_links_to_symbols_are_found_on_the_way(self) -> None:
        """A NAR that is read for its listing is indexed by the build IDs in it."""
        one = packed(TREE)
        self.store_nar(one)
        self.listing(one)
        link = self.kept.objects[ExtraKey("debuginfo", BUILD_ID)]
        self.assertEqual(
            b'{"archive":"../%b","member":"%b"}' % (one.key.url.encode(), MEMBER.encode()), link
        )


class ProxiedListingTests(ListingCase):
    def test_listing_of_an_upstream_is_passed_on(self) -> None:
        """If the NAR is not here, the listing comes from an upstream, and is not kept."""
        one = packed(SMALL)
        self.origin.add(one)
        self.mirror.texts[f"{one.digest}.ls"] = OTHER
        for _ in range(2):
            self.assertEqual((OTHER, "miss"), self.listing(one))
        self.assertEqual({}, self.kept.objects)
        self.assertEqual([], self.origin.asked("nar"))

    def test_garbage_of_an_upstream_is_passed_over(self) -> None:
        """A text that does not look like a listing is not passed on."""
        one = packed(SMALL)
        self.origin.add(one)
        self.origin.texts[f"{one.digest}.ls"] = b"garbage"
        self.refused(self.extras.listing(one.digest), Corrupt)
        self.mirror.texts[f"{one.digest}.ls"] = OTHER
        self.assertEqual(OTHER, self.listing(one)[0])

    def test_unknown_path_has_no_listing(self) -> None:
        """A path that no upstream has, and an invalid hash part, have no listing."""
        self.refused(self.extras.listing("0" * 32), Absent)
        self.refused(self.extras.listing("0" * 32, is_local=True), NotFound)
        self.refused(self.extras.listing("e" * 32), Malformed)

    def test_known_path_without_bytes_has_none_of_its_own(self) -> None:
        """Below /upload no upstream is asked for a listing."""
        one = packed(SMALL)
        self.origin.add(one)
        self.learn(one)
        self.refused(self.extras.listing(one.digest, is_local=True), NotFound)
