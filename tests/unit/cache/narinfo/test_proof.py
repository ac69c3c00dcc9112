"""Paths for which only a content address vouches: their bytes are read first."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.answers import Absent
from ncps.cache.narinfo import verify
from ncps.cache.narinfo.proof import DEADLINE_S, REFUTED_S
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.keys import verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import opaque_key
from ncps.nix.storepath import StorePath
from tests.fakes.samples import OWN_KEY, Sample, file_sample, sample, signed, tree_sample
from tests.fakes.upstream import Script
from tests.unit.cache.rig import CoreCase


class ProofCase(CoreCase):
    def narinfo(self, one: Sample) -> NarInfo:
        """Ask for a narinfo as clients do."""
        return NarInfo.parse(self.get(self.narinfos.get(one.digest)).text)

    def is_ours(self, narinfo: NarInfo) -> bool:
        """Return whether our signature vouches for it."""
        fingerprint, signatures = narinfo.fingerprint(), narinfo.signatures
        return verify_any([OWN_KEY.public], fingerprint, signatures) is not None


class HonestTests(ProofCase):
    def test_hash_that_is_the_nar_hash_needs_no_bytes(self) -> None:
        """`fixed:r:sha256:` vouches for all that we sign, so nothing is fetched."""
        one = tree_sample()
        self.origin.add(one)
        told = self.narinfo(one)
        self.assertTrue(self.is_ours(told))
        self.assertEqual(one.narinfo.ca, told.ca)
        self.assertEqual([], self.origin.asked("nar"))
        self.assertEqual(one.file, self.download(one.key))

    def test_other_hashes_are_compared_with_the_bytes_first(self) -> None:
        """Each kind, in each compression; the bytes are fetched once, and stored."""
        samples = [
            *(file_sample(algorithm=name) for name in ("md5", "sha1", "sha256", "sha512")),
            *(tree_sample(algorithm=name) for name in ("md5", "sha1", "sha512")),
            *(file_sample(name, name) for name in ("none", "zstd", "bzip2", "br")),
            file_sample("text", method="text"),
        ]
        for one in samples:
            self.origin.add(one)
            told = self.narinfo(one)
            self.assertTrue(self.is_ours(told), told.ca)
            self.assertEqual(one.narinfo.ca, told.ca)
            row = self.get(self.catalog.narinfo(one.digest))
            assert row is not None
            entry, nar = row
            self.assertTrue(entry.is_verified)
            self.assertTrue(nar.is_stored)
            self.assertEqual(one.narinfo.nar_hash, nar.nar_hash)
            self.assertEqual(one.file, self.download(one.key))
        asked = self.origin.asked("nar")
        self.assertEqual(len(asked), len(set(asked)))

    def test_nar_hash_is_checked_before_the_bytes_are_stored(self) -> None:
        """Otherwise another narinfo could be served with them."""
        one = file_sample()
        self.origin.add(one)
        self.narinfo(one)
        nar = self.get(self.catalog.nar(one.key))
        assert nar is not None
        self.assertIsNotNone(nar.verified_at)

    def test_file_without_a_size_or_hash(self) -> None:
        """Then NarHash decides about the file, as always."""
        one = file_sample()
        bare = evolve(one.narinfo, file_hash=None, file_size=None)
        self.origin.add(evolve(one, narinfo=bare))
        self.assertTrue(self.is_ours(self.narinfo(one)))

    def test_everybody_shares_one_fetch(self) -> None:
        """Clients of the narinfo and of the NAR, and of another path with the same NAR."""
        one, other = file_sample("hello"), file_sample("hello", method="text")
        self.assertEqual(one.key, other.key)
        self.origin.add(one, other)
        self.origin.scripts.append(Script(stall_at=10))
        waiting = [self.start(self.narinfos.get(digest)) for digest in (one.digest,) * 3]
        waiting.append(self.start(self.narinfos.get(other.digest)))
        client = self.client(one.key)
        for waiter in waiting:
            self.assertNoResult(waiter)
        self.origin.release()
        for waiter in waiting:
            self.successResultOf(waiter)
        self.successResultOf(client.done)
        self.assertEqual(one.file, client.data)
        self.assertEqual(1, len(self.origin.asked("nar")))

    def test_bytes_that_are_stored_already_are_read(self) -> None:
        """Bytes that were fetched by their URL alone are read, and not fetched again."""
        one = file_sample()
        self.origin.add(one)
        self.download(one.conventional)
        self.assertTrue(self.is_ours(self.narinfo(one)))
        self.assertEqual(1, len(self.origin.asked("nar")))

    def test_full_disk_is_no_hindrance(self) -> None:
        """Bytes that cannot be kept are read while they arrive."""
        one = file_sample()
        self.origin.add(one)
        self.is_full = True
        self.origin.scripts.extend([Script(), Script(hold=True)])
        asked = self.start(self.narinfos.get(one.digest))
        self.origin.release()
        self.assertTrue(self.is_ours(NarInfo.parse(self.successResultOf(asked).text)))

    def test_without_keys_it_passes_as_it_is(self) -> None:
        """Clients judge such a narinfo themselves, so no bytes are read for them."""
        self.vetting = evolve(self.vetting, trusted=())
        self.restart()
        one = file_sample()
        self.origin.add(one)
        self.assertEqual(evolve(one.narinfo, url=one.key.url), self.narinfo(one))
        self.assertEqual([], self.origin.asked("nar"))


class LyingTests(ProofCase):
    def refuse(self, one: Sample, reason: str, kind: type[NcpsError] = Absent) -> None:
        error = self.refused(self.narinfos.get(one.digest), kind)
        self.assertIn(reason, str(error))
        self.assertIsNone(self.get(self.catalog.narinfo(one.digest)))
        self.assertEqual({}, self.sidecars.texts)

    def test_false_nar_hash_is_refused_and_nothing_is_stored(self) -> None:
        """The path follows from the CA, and the bytes have its hash; but NarHash is false."""
        one, other = file_sample(), sample("other")
        lie = evolve(one.narinfo, nar_hash=other.narinfo.nar_hash)
        self.origin.add(evolve(one, narinfo=lie))
        self.refuse(one, "NAR hash", Corrupt)
        self.assertEqual({}, self.store.objects)
        lie = evolve(one.narinfo, nar_size=one.narinfo.nar_size + 8)
        self.origin.add(evolve(one, narinfo=lie))
        self.refuse(one, "NarSize", Corrupt)

    def test_other_bytes_are_refused_and_left_alone(self) -> None:
        """NarHash and FileHash are those of another NAR: right by its name, but not this path."""
        one, other = file_sample(), sample("other")
        told = other.narinfo
        lie = evolve(
            one.narinfo,
            url=told.url,
            file_hash=told.file_hash,
            file_size=told.file_size,
            nar_hash=told.nar_hash,
            nar_size=told.nar_size,
        )
        self.origin.add(other, evolve(one, narinfo=lie, file=other.file))
        self.refuse(one, "not executable", Corrupt)
        self.assertEqual({other.key: other.file}, self.store.objects)
        self.assertEqual(other.file, self.download(other.key))
        self.assertEqual([], self.store.quarantined)

    def test_another_upstream_has_its_turn(self) -> None:
        """An upstream with a true narinfo answers for it, now and next time."""
        one, other = file_sample(), file_sample("other")
        lie = evolve(one.narinfo, nar_hash=other.narinfo.nar_hash)
        self.origin.add(evolve(one, narinfo=lie))
        self.mirror.add(one)
        self.assertEqual(one.narinfo.nar_hash, self.narinfo(one).nar_hash)
        self.assertEqual(one.file, self.download(one.key))

    def test_signed_narinfo_of_another_upstream_has_its_turn(self) -> None:
        """A key may vouch for the other narinfo, instead of its content address."""
        one = file_sample()
        lie = evolve(one.narinfo, nar_size=one.narinfo.nar_size + 8)
        self.origin.add(evolve(one, narinfo=lie))
        self.mirror.add(evolve(one, narinfo=signed(one.narinfo)))
        self.assertEqual(2, len(self.narinfo(one).signatures))

    def test_address_of_another_path_is_refused(self) -> None:
        """Also an address that is the right NarHash is refused, as by Nix."""
        for one in (tree_sample(), file_sample()):
            lie = evolve(
                one, narinfo=evolve(one.narinfo, ca=f"fixed:r:{sample('x').narinfo.nar_hash}")
            )
            self.origin.add(lie)
            self.refuse(lie, "does not follow from its CA")
            more = evolve(one.narinfo, references=(StorePath("0" * 32, "x"),))
            self.origin.add(evolve(one, narinfo=more))
            self.refuse(one, "does not follow from its CA")
        self.assertEqual([], self.origin.asked("nar"))

    def test_tree_with_another_nar_hash_is_refused_at_once(self) -> None:
        """If the hash must be NarHash, the difference is visible without a fetch."""
        one = tree_sample()
        self.origin.add(
            evolve(one, narinfo=evolve(one.narinfo, nar_hash=sample().narinfo.nar_hash))
        )
        self.refuse(one, "its CA says")
        self.assertEqual([], self.origin.asked("nar"))

    def test_a_file_that_cannot_be_read_is_refused_immediately(self) -> None:
        """NARs that are too large to read, and unknown compressions."""
        one = file_sample()
        self.origin.add(evolve(one, narinfo=evolve(one.narinfo, compression="lzip")))
        self.refuse(one, "cannot decompress a NAR in lzip")
        size = verify.MAX_READ_SIZE + 1
        self.origin.add(evolve(one, narinfo=evolve(one.narinfo, nar_size=size)))
        self.refuse(one, f"its NAR of {size} bytes is too large")
        self.assertEqual([], self.origin.asked("nar"))

    def test_wrong_file_is_not_fetched_and_read_repeatedly(self) -> None:
        """A narinfo that was found wrong is refused for a while without another reading."""
        one, other = file_sample(), file_sample("other")
        told = other.narinfo
        lie = evolve(told, store_path=one.narinfo.store_path, ca=one.narinfo.ca)
        self.origin.add(evolve(one, narinfo=lie, file=other.file))
        self.refuse(one, "the contents have the hash", Corrupt)
        reads = len(self.store.bodies), len(self.origin.asked("nar"))
        for _ in range(3):
            self.refuse(one, "found wrong a while ago", Corrupt)
        self.assertEqual(reads, (len(self.store.bodies), len(self.origin.asked("nar"))))
        self.clock.advance(REFUTED_S)
        self.refuse(one, "the contents have the hash", Corrupt)

    def test_url_of_another_nar_is_not_believed(self) -> None:
        """A URL that belongs to another path's NAR stays with it; the NAR gets its own name."""
        one, other = file_sample(), sample("other")
        self.origin.add(other)
        self.learn(other)
        lie = evolve(one.narinfo, url=other.url, file_hash=other.narinfo.file_hash)
        self.origin.add(evolve(one, narinfo=lie))
        self.origin.nars[other.url] = one.file
        told = self.narinfo(one)
        self.assertEqual(opaque_key("xz", one.narinfo.nar_hash).url, told.url)
        nar = self.get(self.catalog.nar(other.key))
        assert nar is not None
        self.assertEqual(other.narinfo.nar_hash, nar.nar_hash)


class TroubleTests(ProofCase):
    def test_nar_that_cannot_be_had_now_is_not_absent(self) -> None:
        """The narinfo is not served, and not remembered as absent."""
        one = file_sample()
        self.origin.add(one)
        self.origin.scripts.extend([Script(error=Unavailable("status 503"))] * 10)
        asked = self.start(self.narinfos.get(one.digest))
        self.clock.pump([0.5] * 20)
        self.failureResultOf(asked, Unavailable)
        self.origin.scripts.clear()
        self.assertTrue(self.is_ours(self.narinfo(one)))

    def test_nar_that_is_gone_is_absent(self) -> None:
        """If no upstream has the NAR, no upstream has the path."""
        one = file_sample()
        self.origin.add(one)
        del self.origin.nars[one.url]
        self.assertIsInstance(self.refused(self.narinfos.get(one.digest), NotFound), Absent)

    def test_slow_nar_is_waited_for_until_a_deadline(self) -> None:
        """The download continues, and a client that comes again finds it done."""
        one = file_sample(compression="none")
        self.origin.add(one)
        self.origin.scripts.append(Script(stall_at=70_000))
        asked = self.start(self.narinfos.get(one.digest))
        self.clock.advance(DEADLINE_S - 1)
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.assertTrue(self.failureResultOf(asked, Unavailable).value.timed_out)
        self.origin.release()
        self.assertTrue(self.is_ours(self.narinfo(one)))
        self.assertEqual(1, len(self.origin.asked("nar")))

    def test_failing_download_of_a_path_that_is_being_proved(self) -> None:
        """A client that waits for its bytes does not keep others from asking for its narinfo."""
        one = file_sample()
        self.origin.add(one)
        self.narinfo(one)
        self.get(self.catalog.mark_missing(one.key))
        self.store.objects.clear()
        self.restart()
        self.clock.advance(10_000)
        self.origin.scripts.append(Script(hold=True))
        asked = self.start(self.narinfos.get(one.digest))
        self.assertNoResult(asked)
        del self.origin.nars[one.url]
        self.origin.release(NotFound("status 404"))
        self.clock.advance(0)
        self.failureResultOf(asked, NotFound)

    def test_bytes_changed_on_the_way_do_no_harm(self) -> None:
        """The download restarts, as for any NAR."""
        one = file_sample()
        self.origin.add(one)
        self.mirror.add(one)
        self.origin.scripts.append(Script(lie_at=100))
        self.assertTrue(self.is_ours(self.narinfo(one)))
