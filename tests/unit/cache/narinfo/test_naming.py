"""Names of NARs: which bytes they stand for, whatever the unsigned facts say."""

from __future__ import annotations

from attrs import evolve

from ncps.cache.answers import Outcome
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.errors import NcpsError, NotFound
from ncps.nix.judge import Look
from ncps.nix.keys import SecretKey, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY, Sample, sample, signed
from tests.unit.cache.rig import CoreCase

SIZE = 200_000


class NamesCase(CoreCase):
    """P and Q, and an upstream whose well-signed narinfo of P has Q's URL and file."""

    compression = "xz"

    def setUp(self) -> None:
        super().setUp()
        self.p = sample("p", SIZE, self.compression)
        self.q = sample("q", SIZE, self.compression)
        file = self.q.narinfo
        lie = self.p.altered(url=file.url, file_hash=file.file_hash, file_size=file.file_size)
        self.lie: Sample = evolve(lie, file=self.q.file)

    def told(self, path: Sample) -> NarInfo:
        """Return the narinfo of a path as it is served."""
        return NarInfo.parse(self.get(self.narinfos.get(path.digest)).text)

    def named(self, path: Sample) -> NarKey:
        """Return the name of a path's NAR in its narinfo."""
        return NarKey.parse(self.told(path).url.removeprefix("nar/"))

    def inspected(self) -> None:
        """Let all stored NARs be verified."""
        for nar in list(self.catalog.records.values()):
            if nar.is_stored:
                self.get(self.verifier.verify(nar))

    def fetched(self, key: NarKey) -> bytes | None:
        """Return all bytes behind a name; None if they are not available."""
        opening = self.open(key)
        self.clock.pump([0.5] * 5)
        result: list[bytes | None] = []

        async def whole() -> None:
            try:
                _, client = await opening
                await client.done
            except NcpsError:
                result.append(None)
            else:
                result.append(client.data)

        self.start(whole())
        self.clock.pump([0.5] * 5)
        return result[0]


class HearsayTests(NamesCase):
    def test_a_file_that_was_asked_for_by_its_name_ignores_facts_of_other_paths(self) -> None:
        """Q is stored, and only its name is known; a narinfo of P cannot claim it."""
        self.origin.add(self.q)
        self.assertEqual(self.q.file, self.download(self.q.conventional))
        self.origin.narinfos[self.p.digest] = self.lie.narinfo
        self.mirror.add(self.p)
        key = self.named(self.p)
        self.assertNotEqual(self.q.conventional, key)
        self.fetched(key)
        self.inspected()
        self.assertEqual(self.p.file, self.fetched(self.named(self.p)))
        self.assertEqual(self.q.file, self.download(self.q.conventional))

    def test_bytes_of_the_own_nar_are_found_under_their_name(self) -> None:
        """The NAR of a true narinfo comes from the file that is here."""
        self.origin.add(self.q)
        self.download(self.q.conventional)
        key = self.named(self.q)
        nar, client = self.successResultOf(self.open(key))
        self.assertEqual((Outcome.HIT, self.q.file), (nar.outcome, client.data))
        self.assertIsNotNone(self.catalog.records[key].verified_at)
        self.assertEqual(1, len(self.origin.asked("nar")))

    def test_bytes_of_another_nar_are_not(self) -> None:
        """Such bytes are read once, refused, and left under their own name."""
        self.origin.add(self.q)
        self.download(self.q.conventional)
        self.origin.narinfos[self.p.digest] = self.lie.narinfo
        self.origin.nars.clear()
        opened = len(self.store.bodies)
        key = self.named(self.p)
        for _ in range(3):
            self.assertIsNone(self.fetched(key))
        self.assertEqual(opened + 1, len(self.store.bodies))
        self.assertEqual([], self.store.quarantined)
        self.assertEqual(self.q.file, self.download(self.q.conventional))

    def test_a_name_that_was_earned_is_used(self) -> None:
        """After a file was verified, the narinfo of its NAR shows the file's own name."""
        self.origin.add(self.q)
        self.download(self.q.conventional)
        self.inspected()
        self.assertEqual(self.q.conventional, self.named(self.q))
        self.origin.narinfos[self.p.digest] = self.lie.narinfo
        self.assertEqual(self.p.key, self.named(self.p))


class EarnedNameTests(NamesCase):
    def test_a_name_never_stands_for_another_path_s_nar(self) -> None:
        """No client has asked for Q; P comes from a healthy upstream, under its own name."""
        self.origin.narinfos[self.p.digest] = self.lie.narinfo
        self.mirror.add(self.p)
        self.fetched(self.named(self.p))
        self.inspected()
        self.assertEqual(self.p.file, self.fetched(self.named(self.p)))
        self.assertIsNone(self.fetched(self.q.conventional))
        self.mirror.add(self.q)
        self.clock.advance(60)
        self.assertEqual(self.q.file, self.fetched(self.q.conventional))

    def test_a_file_with_another_hash_is_no_answer_to_a_name(self) -> None:
        """An upstream that serves P's file under Q's URL is detected, with or without NarHash."""
        self.origin.add(self.q)
        self.origin.nars[self.q.url] = self.p.file
        self.assertIsNone(self.fetched(self.q.conventional))
        self.assertEqual({}, self.store.objects)

    def test_a_lost_file_comes_back_as_it_was(self) -> None:
        """Under an earned name only the same file is stored again, although its NAR is known."""
        self.origin.add(self.q)
        self.download(self.q.conventional)
        self.inspected()
        self.assertEqual(self.q.conventional, self.named(self.q))
        self.store.objects.clear()
        self.origin.nars[self.q.url] = self.p.file
        self.assertIsNone(self.fetched(self.q.conventional))
        self.origin.add(self.q)
        self.clock.advance(60)
        self.assertEqual(self.q.file, self.fetched(self.q.conventional))

    def test_a_file_is_found_by_its_hash_under_another_name(self) -> None:
        """A client with the upstream's URL gets the file that is stored under a name of ours."""
        self.origin.add(self.q)
        self.learn(self.q)
        self.download(self.q.key)
        nar, client = self.successResultOf(self.open(self.q.conventional))
        self.assertEqual((Outcome.HIT, self.q.file), (nar.outcome, client.data))
        size, outcome = self.get(self.nars.stat(self.q.conventional))
        self.assertEqual((len(self.q.file), Outcome.HIT), (size, outcome))
        self.assertEqual(1, len(self.origin.asked("nar")))


class CheapEarnedNameTests(EarnedNameTests):
    """The same if NarHash is checked while the bytes arrive."""

    compression = "zstd"


class CheapHearsayTests(HearsayTests):
    """The same if NarHash is checked while the bytes arrive."""

    compression = "zstd"


class OtherReplicaTests(NamesCase):
    """Another replica, with other upstreams and other keys, shares catalog and store."""

    inner_look = Look.IF_CHEAP

    def setUp(self) -> None:
        super().setUp()
        self.scripted[:] = [self.origin]
        self.restart()

    def become_another(self) -> None:
        """Act as the replica whose only upstream is the second one."""
        self.scripted[:] = [self.mirror]
        self.restart()

    def test_facts_of_its_upstream_do_not_bind_this_replica(self) -> None:
        """This replica ignores the other one's facts: its own upstream has another file."""
        self.origin.narinfos[self.p.digest] = self.lie.narinfo
        key = self.named(self.p)
        self.become_another()
        self.mirror.add(self.p)
        self.assertEqual(self.p.file, self.fetched(key))
        self.assertIsNotNone(self.catalog.records[key].verified_at)

    def test_bytes_of_its_upstream_are_looked_into(self) -> None:
        """Wrong bytes that the other replica stored are detected before one is served here."""
        self.origin.add(self.lie)
        key = self.named(self.p)
        self.assertEqual(self.q.file, self.download(key))
        self.become_another()
        self.mirror.add(self.p)
        self.assertEqual(self.p.file, self.fetched(key))
        self.assertEqual([(key, self.q.file)], self.store.quarantined)

    def test_right_bytes_of_its_upstream_are_looked_into_once(self) -> None:
        """After that, a right file is served like any other."""
        self.origin.add(self.p)
        key = self.named(self.p)
        self.download(key)
        self.become_another()
        for _ in range(2):
            self.assertEqual(self.p.file, self.download(key))
        self.assertEqual({"right": 1}, self.verified)
        self.assertEqual([], self.mirror.asked("nar"))

    def test_a_narinfo_that_only_it_trusts_is_not_shown(self) -> None:
        """A narinfo by another key is asked for again; it is absent if no trusted key vouches."""
        self.origin.add(self.p)
        self.named(self.p)
        theirs = SecretKey.generate("theirs-1")
        self.vetting = NarInfoVerifier(trusted=(theirs.public,), own=OWN_KEY, name=OWN_KEY.name)
        self.restart()
        self.refused(self.narinfos.get(self.p.digest), NotFound)
        narinfo = signed(self.p.narinfo, theirs)
        self.origin.narinfos[self.p.digest] = narinfo
        told = self.told(self.p)
        self.assertEqual(
            {UPSTREAM_KEY.name, theirs.name, OWN_KEY.name}, {s.name for s in told.signatures}
        )
        self.vetting = evolve(self.vetting, trusted=(UPSTREAM_KEY.public,))
        self.restart()
        self.origin.narinfos.clear()
        self.assertEqual(told.signatures, self.told(self.p).signatures)


class OwnKeyTests(NamesCase):
    def test_another_key_signs_what_was_recorded_before(self) -> None:
        """The only signature of ours is by the present key, under the same name or another."""
        self.origin.add(self.p)
        first = self.told(self.p)
        self.assertTrue(verify_any([OWN_KEY.public], first.fingerprint(), first.signatures))
        for name in (OWN_KEY.name, "renamed.example.org"):
            key = SecretKey.generate(name)
            self.vetting = evolve(self.vetting, own=key, name=name)
            self.restart()
            told = self.told(self.p)
            ours = [s for s in told.signatures if s.name != UPSTREAM_KEY.name]
            self.assertEqual([name], [s.name for s in ours])
            self.assertTrue(verify_any([key.public], told.fingerprint(), ours))

    def test_without_signing_no_signature_of_before_is_shown(self) -> None:
        """If signing was switched off, only the upstream's signature is shown."""
        self.origin.add(self.p)
        self.told(self.p)
        self.vetting = evolve(self.vetting, own=None)
        self.restart()
        self.assertEqual([UPSTREAM_KEY.name], [s.name for s in self.told(self.p).signatures])


class AbsentTests(NamesCase):
    def test_an_unknown_opaque_name(self) -> None:
        """No upstream has a NAR of such a name, and no file has that hash."""
        self.failureResultOf(self.open(self.p.key), NotFound)
