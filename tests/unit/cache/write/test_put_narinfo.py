"""Uploads of narinfos: which ones clients get afterwards, and which are refused."""

from __future__ import annotations

import re

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.auth.principal import ANONYMOUS, Principal, Scope
from ncps.cache.answers import Outcome
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.upkeep.rebuild import Rebuild, RebuildTally
from ncps.cache.write.verbs import UploadOutcome
from ncps.errors import Conflict, Malformed, NotFound, Refused, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.nix.keys import SecretKey
from ncps.nix.narinfo import NarInfo
from ncps.nix.storepath import StorePath
from ncps.ports import NarRecord, Notice
from ncps.ports.catalog import UPLOAD
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY, Sample, sample
from tests.unit.cache.write.rig import CLIENT, UPLOAD_KEY, UploadCase, by, upload

REFERENCE = StorePath("0" * 32, "library")


class PutNarInfoTests(UploadCase):
    def shown(self, one: Sample) -> NarInfo:
        """The narinfo that clients get."""
        return NarInfo.parse(self.get(self.narinfos.get(one.digest)).text)

    def test_an_uploaded_path_is_served(self) -> None:
        """Clients get narinfo and NAR, in each compression, signed by us; no upstream is asked."""
        for compression in ("none", "zstd", "xz", "gzip"):
            one = upload(compression, compression)
            self.put_nar(one)
            self.assertEqual(UploadOutcome.STORED, self.put_narinfo(one))
            found = self.shown(one)
            self.assertEqual(one.url, found.url)
            self.assertEqual(
                (one.narinfo.nar_hash, OWN_KEY.name), (found.nar_hash, found.signatures[0].name)
            )
            self.assertTrue(OWN_KEY.public.verify(found.fingerprint(), found.signatures[0]))
            self.assertEqual(one.file, self.download(one.conventional))
        self.assertEqual([], [line for up in self.scripted for line in up.log])
        self.assertEqual(4, self.counts["narinfo stored"])

    def test_a_path_that_was_absent_a_moment_ago_is_there(self) -> None:
        """ncps forgets that the path was absent, and tells the other replicas."""
        one = upload()
        self.refused(self.narinfos.get(one.digest), NotFound)
        self.put(one)
        self.assertEqual(Outcome.HIT, self.get(self.narinfos.get(one.digest)).outcome)
        self.assertIn(Notice("absent", one.digest), self.notices.published)
        self.assertIn(Notice("nar", one.conventional.file_name), self.notices.published)

    def test_a_path_with_symbols_is_looked_into(self) -> None:
        """The list of build IDs gets those of an uploaded path with debug information."""
        told: list[NarRecord] = []
        self.core.records.symbols.on_unread = told.append
        one = upload("hello")
        path = StorePath(one.digest, "hello-debug")
        symbols = evolve(one, narinfo=evolve(one.narinfo, store_path=path))
        self.put(upload("other"), symbols)
        self.assertEqual([symbols.conventional], [nar.key for nar in told])

    def test_the_url_must_be_that_of_the_store_path(self) -> None:
        """ncps refuses a narinfo of another path, and a text that is no narinfo."""
        one, other = upload("one"), upload("other")
        self.put_nar(one)
        putting = self.uploads.put_narinfo(other.digest, one.narinfo.render(), CLIENT)
        self.refused(putting, Malformed)
        foreign = one.narinfo.render().replace(b"/nix/store", b"/gnu/store")
        for text in (b"", b"<html>", foreign):
            self.refused(self.uploads.put_narinfo(one.digest, text, CLIENT), Malformed)
        self.assertEqual({}, self.catalog.entries)

    def test_a_nar_comes_first(self) -> None:
        """A narinfo whose NAR is not here is refused, and says what to do."""
        self.assertIn("upload the NAR", self.refuse_narinfo(upload(), Malformed))

    def test_the_nar_must_be_as_the_narinfo_says(self) -> None:
        """ncps compares each fact of the narinfo with the computed one."""
        one = upload()
        self.put_nar(one)
        wrong = sha256_of(b"wrong")
        for changes in (
            {"nar_hash": wrong},
            {"nar_size": 7},
            {"file_hash": wrong},
            {"file_size": 7},
            {"compression": "zstd"},
            {"url": f"https://elsewhere/{one.url}"},
            {"url": "nar/opaque"},
        ):
            bad = evolve(one, narinfo=evolve(one.narinfo, **changes))
            self.refuse_narinfo(bad, Malformed)
        self.assertEqual(({}, {}), (self.catalog.entries, self.sidecars.texts))
        self.put_narinfo(one)

    def test_a_nar_that_was_not_looked_into_is_before_it_counts(self) -> None:
        """If inspecting xz is expensive, it comes after the upload and before the narinfo."""
        self.make(is_eager=False)
        one, bad = upload(), upload("bad")
        self.put_nar(one)
        self.put_narinfo(one)
        self.assertIsNotNone(self.catalog.records[one.conventional].verified_at)
        bad = evolve(bad, file=bad.file[:-20])
        bad = evolve(
            bad,
            narinfo=evolve(
                bad.narinfo,
                file_hash=sha256_of(bad.file),
                file_size=len(bad.file),
                url=f"nar/{sha256_of(bad.file).nix32}.nar.xz",
            ),
        )
        self.put_nar(bad)
        self.refuse_narinfo(bad, Malformed)
        self.assertNotIn(bad.digest, self.catalog.entries)

    def test_the_client_needs_leave_for_the_path(self) -> None:
        """A client that may write other paths, or none, is refused."""
        one = upload("hello")
        self.put_nar(one)
        writer = Principal(
            name="other", scopes=frozenset({Scope.WRITE}), paths=re.compile(".*-other-.*")
        )
        for client in (writer, ANONYMOUS):
            self.refuse_narinfo(one, Refused, client)
        allowed = evolve(writer, paths=re.compile(".*-hello-.*"))
        self.put_narinfo(one, allowed)

    def test_the_same_narinfo_again_is_no_news(self) -> None:
        """The second upload succeeds, and adds its signatures."""
        one = upload()
        self.put(one)
        self.assertEqual(UploadOutcome.KNOWN, self.put_narinfo(one))
        other = SecretKey.generate("other-1")
        self.assertEqual(UploadOutcome.MERGED, self.put_narinfo(by(one)))
        self.assertEqual(UploadOutcome.MERGED, self.put_narinfo(by(one, other)))
        self.assertEqual(UploadOutcome.KNOWN, self.put_narinfo(by(one)))
        names = {signature.name for signature in self.shown(one).signatures}
        self.assertEqual({UPLOAD_KEY.name, other.name, OWN_KEY.name}, names)
        self.assertIn(b"Sig: other-1:", self.sidecars.texts[one.digest])

    def test_another_nar_for_a_path_is_a_conflict(self) -> None:
        """The first one stays; once its bytes are gone, another may take its place."""
        one, second = upload(), upload("second")
        second = evolve(second, narinfo=evolve(second.narinfo, store_path=one.narinfo.store_path))
        self.put(one)
        self.put_nar(second)
        self.assertIn("NarHash", self.refuse_narinfo(second, Conflict))
        self.assertEqual(one.narinfo.nar_hash, self.shown(one).nar_hash)
        more = evolve(one, narinfo=evolve(one.narinfo, references=[REFERENCE]))
        self.refuse_narinfo(more, Conflict)
        self.get(self.catalog.mark_missing(one.conventional))
        self.put_narinfo(second)
        self.assertEqual(second.narinfo.nar_hash, self.shown(one).nar_hash)

    def test_of_two_nars_for_a_path_at_once_one_is_accepted(self) -> None:
        """The second narinfo waits until the first one is written, and is a conflict then."""
        one, second = upload(), upload("second")
        second = evolve(second, narinfo=evolve(second.narinfo, store_path=one.narinfo.store_path))
        self.put_nar(one)
        self.put_nar(second)
        put = self.sidecars.put
        others: list[Deferred[UploadOutcome]] = []

        async def put_beside(digest: str, text: bytes) -> None:
            if not others:
                body = second.narinfo.render()
                others.append(self.start(self.uploads.put_narinfo(one.digest, body, CLIENT)))
            await put(digest, text)

        self.patch(self.sidecars, "put", put_beside)
        self.assertEqual(UploadOutcome.STORED, self.put_narinfo(one))
        self.failureResultOf(others[0], Conflict)
        self.assertEqual(one.narinfo.nar_hash, self.shown(one).nar_hash)
        self.assertIn(str(one.narinfo.nar_hash).encode(), self.sidecars.texts[one.digest])

    def test_a_path_that_another_client_uploads_is_waited_for_a_while(self) -> None:
        """After that time the upload fails, and leaves nothing."""
        one = upload()
        self.put_nar(one)
        lease = self.get(self.leases.take(f"upload:narinfo:{one.digest}"))
        sending = self.start(self.uploads.put_narinfo(one.digest, one.narinfo.render(), CLIENT))
        self.assertNoResult(sending)
        self.clock.advance(30)
        self.failureResultOf(sending, Unavailable)
        self.assertNotIn(one.digest, self.sidecars.texts)
        self.get(lease.release())
        self.put_narinfo(one)

    def test_a_path_of_an_upstream_keeps_its_nar(self) -> None:
        """A stored path is not stored a second time in another compression."""
        kept = by(upload("hello", "zstd"), UPSTREAM_KEY)
        self.origin.add(kept)
        self.learn(kept)
        self.download(kept.key)
        again = upload("hello", "xz")
        self.put_nar(again)
        self.assertEqual(UploadOutcome.KNOWN, self.put_narinfo(again))
        self.assertEqual(kept.key.url, self.shown(kept).url)

    def test_a_narinfo_of_this_cache_may_come_back(self) -> None:
        """`nix store sign` reads the narinfo that this cache shows, and writes it with a key."""
        one = sample()
        self.origin.add(one)
        self.learn(one)
        self.download(one.key)
        ours = self.shown(one)
        signed = evolve(ours, signatures=(*ours.signatures, UPLOAD_KEY.sign(ours.fingerprint())))
        putting = self.uploads.put_narinfo(one.digest, signed.render(), CLIENT)
        self.assertEqual(UploadOutcome.MERGED, self.get(putting))
        names = {signature.name for signature in self.shown(one).signatures}
        self.assertEqual({UPSTREAM_KEY.name, UPLOAD_KEY.name, OWN_KEY.name}, names)

    def test_an_upload_outlives_a_restart(self) -> None:
        """It is trusted afterwards, and by a replica with other keys; a sidecar keeps it."""
        one = upload()
        self.put(one)
        self.assertEqual(UPLOAD, self.catalog.entries[one.digest].verified_by)
        self.restart()
        self.shown(one)
        self.assertIn(b"NcpsUpload: yes", self.sidecars.texts[one.digest])

    def test_nothing_is_half_accepted(self) -> None:
        """A sidecar or a row that cannot be written refuses the narinfo; later it succeeds."""
        one = upload()
        self.put_nar(one)
        self.sidecars.failing = StorageFull("full")
        self.refuse_narinfo(one, StorageFull)
        self.sidecars.failing = None
        self.catalog.failing_writes = Unavailable("away")
        self.refuse_narinfo(one, Unavailable)
        self.catalog.failing_writes = None
        self.refused(self.narinfos.get(one.digest), NotFound)
        self.put_narinfo(one)
        self.shown(one)


class ReferenceTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(needs_references=True)
        self.library = upload("library")
        self.one = upload("program")
        narinfo = evolve(
            self.one.narinfo,
            references=[self.library.narinfo.store_path, self.one.narinfo.store_path],
        )
        self.one = evolve(self.one, narinfo=narinfo)
        self.put_nar(self.one)

    def test_references_are_here_first(self) -> None:
        """A reference that is nowhere is named; once it was uploaded, the narinfo is accepted."""
        self.assertIn("library", self.refuse_narinfo(self.one, Malformed))
        self.negatives.clear()
        self.put(self.library)
        self.put_narinfo(self.one)

    def test_references_may_be_at_an_upstream(self) -> None:
        """A reference that an upstream has need not be uploaded."""
        self.origin.add(by(self.library, UPSTREAM_KEY))
        self.put_narinfo(self.one)

    def test_an_upstream_that_is_away_is_no_absence(self) -> None:
        """ncps does not know whether the reference exists: the client may try again."""
        for upstream in self.scripted:
            upstream.is_away = True
        self.refuse_narinfo(self.one, Unavailable)

    def test_without_the_rule_they_may_be_missing(self) -> None:
        """By default ncps believes the client."""
        self.make()
        self.put_narinfo(self.one)


class LostCatalogTests(UploadCase):
    def test_uploads_come_back(self) -> None:
        """A rebuild restores them under their names, as uploads, and no client can forge one."""
        uploads = [upload(name, kind) for name, kind in (("a", "xz"), ("b", "none"), ("c", "gzip"))]
        self.put(*uploads)
        forged = upload("forged")
        self.store.put(forged.conventional, forged.file)
        self.sidecars.texts[forged.digest] = forged.narinfo.render() + b"NcpsUpload: yes\n"
        self.catalog = type(self.catalog)()
        self.restart()
        tally = self.get(
            Rebuild(
                self.world,
                adoption=self.adoption,
                vetting=self.vetting,
                proofs=Proofs(
                    clock=self.clock,
                    workers=self.threads,
                    vetting=self.vetting,
                    fetch=self.adoption.open,
                ),
            ).run()
        )
        self.assertEqual(RebuildTally(narinfos=3, nars=3, refused=1), tally)
        for one in uploads:
            found = NarInfo.parse(self.get(self.narinfos.get(one.digest)).text)
            self.assertEqual((one.url, one.narinfo.nar_hash), (found.url, found.nar_hash))
            self.assertEqual(one.file, self.download(one.conventional))
            self.assertTrue(self.catalog.records[one.conventional].is_only_copy)
