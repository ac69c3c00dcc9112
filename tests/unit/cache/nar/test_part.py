"""Clients that want a part of a NAR's file, and others that want the whole at the same time.

A part belongs to one file. If no upstream has the file that the narinfo names, clients that want
the whole get another upstream's file.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred

from ncps.aio.guess import guessing
from ncps.cache.answers import Outcome
from ncps.cache.cluster import lease_of
from ncps.errors import Corrupt, NotFound, Unavailable
from ncps.nix.hashes import sha256_of
from tests.fakes.client import Client
from tests.fakes.leases import MemoryLeases
from tests.fakes.samples import Sample, packed, sample
from tests.fakes.upstream import Script
from tests.unit.cache.nar.test_false_facts import FALSE_HASH, SIZE, FalseFactsCase
from tests.unit.cache.nar.test_other_compressor import OtherCompressorCase


class PartTests(FalseFactsCase):
    def test_a_client_with_a_part_gets_no_other_file(self) -> None:
        """Bytes behind a URL never change: a client that wants the rest must try later."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.otherwise = Script(error=Unavailable("status 500"))
        opening = self.start(self.nars.open(key, is_part=True))
        self.clock.pump([0.2] * 5)
        self.failureResultOf(opening, Unavailable)
        self.assertEqual([], self.mirror.asked("nar"))

    def test_a_whole_beside_a_part_of_a_file_that_is_nowhere(self) -> None:
        """A client that wants a part keeps no other one from the whole."""
        for is_first in (True, False):
            self.setUp()
            key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
            self.origin.scripts.append(Script(hold=True))
            begun = {
                is_part: self.start(self.nars.open(key, is_part=is_part))
                for is_part in (is_first, not is_first)
            }
            self.origin.otherwise = Script(error=NotFound("status 404"))
            self.origin.release(NotFound("status 404"))
            self.successResultOf(begun[False]).close()
            self.failureResultOf(begun[True], Unavailable)
            self.assertEqual(1, len(self.mirror.asked("nar")))

    def test_a_part_comes_from_no_replacing_file(self) -> None:
        """A client that waits for a part of a file gets no byte of another file."""
        other = sample("other", SIZE)
        for nothing_yet in (True, False):  # whether the client has yet to open the body
            self.setUp()
            key = self.lie(url=other.url, file_hash=sha256_of(other.file))
            self.origin.nars[other.url] = other.file
            self.origin.scripts.append(Script(stall_at=0, lie_at=5, total=0))
            part = self.get(self.nars.open(key, is_part=True))
            reading = None if nothing_yet else Client(self.get(part.body(1000, 2000)))
            whole = self.start(self.nars.open(key))
            self.origin.otherwise = Script(error=NotFound("status 404"))
            self.origin.release()
            self.clock.pump([0.2] * 5)
            nar = self.successResultOf(whole)
            if reading is None:
                self.refused(part.body(1000, 2000), Unavailable)
            else:
                self.failureResultOf(reading.done, Unavailable)
                self.assertEqual(b"", reading.data)
            client = Client(self.get(nar.body()))
            self.successResultOf(client.done)
            self.assertEqual(self.sample.file, client.data)

    def test_head_beside_a_part_of_a_file_that_is_nowhere(self) -> None:
        """HEAD has the answer of a request for the whole."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.scripts.append(Script(hold=True))
        part = self.start(self.nars.open(key, is_part=True))
        head = self.start(self.nars.stat(key))
        self.origin.otherwise = Script(error=NotFound("status 404"))
        self.origin.release(NotFound("status 404"))
        self.assertEqual(Outcome.COALESCED, self.successResultOf(head)[1])
        self.failureResultOf(part, Unavailable)

    def test_a_part_that_joins_a_fetch_ahead(self) -> None:
        """Also there it waits for the file that the narinfo names."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.scripts.append(Script(hold=True))
        with guessing():
            self.get(self.nars.fetch_ahead(self.catalog.records[key], lambda: True))
        part = self.start(self.nars.open(key, is_part=True))
        whole = self.start(self.nars.open(key))
        self.origin.otherwise = Script(error=NotFound("status 404"))
        self.origin.release(NotFound("status 404"))
        self.clock.pump([0.2] * 5)
        self.successResultOf(whole).close()
        self.failureResultOf(part, Unavailable)

    def test_a_whole_that_comes_when_a_part_has_failed(self) -> None:
        """A client that wants the whole does not get the error of a client for a part."""
        key = self.lie(url=f"nar/{FALSE_HASH.nix32}.nar.xz", file_hash=FALSE_HASH)
        self.origin.nars.clear()
        self.mirror.scripts.append(Script(hold=True))
        forgotten = self.catalog.forget_narinfo
        wholes: list[Deferred[Any]] = []

        async def forget(digest: str) -> None:
            wholes.append(self.start(self.nars.open(key)))
            await forgotten(digest)

        with patch.object(self.catalog, "forget_narinfo", forget):
            part = self.start(self.nars.open(key, is_part=True))
            self.clock.pump([1.0] * 5)
        self.failureResultOf(part, Corrupt)
        self.mirror.release()
        self.successResultOf(wholes[0]).close()


class RelayedPartTests(OtherCompressorCase):
    def test_a_part_comes_from_no_file_that_another_process_has_chosen(self) -> None:
        """The process that fetches the NAR has clients for the whole, to which any file will do."""
        there = MemoryLeases("there", beside=self.leases)
        lease = self.get(there.try_hold(lease_of(self.sample.key)))
        assert lease is not None
        self.peers.file = str(sha256_of(self.other.file))
        self.peers.line.nars[self.sample.key.url] = self.other.file
        self.peers.is_silent = True
        part = self.start(self.nars.open(self.sample.key, is_part=True))
        whole = self.start(self.nars.open(self.sample.key))
        self.peers.line.release()
        self.failureResultOf(part, Unavailable)
        client = Client(self.get(self.successResultOf(whole).body()))
        self.successResultOf(client.done)
        self.assertEqual(self.other.file, client.data)
        self.get(lease.release())


class FoundOutTests(FalseFactsCase):
    def test_file_that_holds_another_nar_is_asked_for_once(self) -> None:
        """After such a file was detected, clients get their parts from a good file."""
        self.assert_found_out(sample("other", SIZE), asked=1)

    def test_file_that_holds_a_longer_nar_is_found_out(self) -> None:
        """The same if the NAR in the file has more bytes than NarSize says.

        NarSize may be false, so the next narinfo that names the file is not refused for that.
        """
        self.assert_found_out(packed("other", bytes(2 * SIZE), "xz"), asked=2)

    def test_file_in_another_compression_is_found_out(self) -> None:
        """The same if the file has another compression than the narinfo says."""
        self.assert_found_out(packed("other", bytes(SIZE), "zstd"), asked=2)

    def assert_found_out(self, other: Sample, *, asked: int) -> None:
        """Check that a narinfo with another path's file causes an error for one client only.

        :param asked: number of requests for the file until the right one is stored.
        """
        key = self.lie(url=other.url, file_hash=sha256_of(other.file), file_size=len(other.file))
        self.origin.nars[other.url] = other.file
        self.mirror.is_away = True
        opening = self.open(key)
        self.clock.pump([1.0] * 100)
        self.failureResultOf(opening, Unavailable)
        self.mirror.is_away = False
        for _ in range(2):
            part = self.start(self.nars.open(key, is_part=True))
            self.clock.pump([1.0] * 60)
            nar = self.successResultOf(part)
            rest = Client(self.get(nar.body(1000)))
            self.successResultOf(rest.done)
            self.assertEqual(self.sample.file[1000:], rest.data)
            nar.close()
            self.restart()
        self.assertEqual(asked, len(self.origin.asked("nar")))
