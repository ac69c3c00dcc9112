"""Reads below /upload: answered from the store; no upstream is asked."""

from __future__ import annotations

from ncps.cache.answers import Outcome
from ncps.cache.write.reads import SETTLED_S
from ncps.errors import NotFound, Unavailable
from ncps.nix.narurl import NarKey
from tests.fakes.samples import Sample, sample
from tests.unit.cache.write.rig import UploadCase, upload


class StoredOnlyTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = sample()
        self.origin.add(self.one)

    def assertAbsent(self, one: Sample, key: NarKey) -> None:
        self.origin.log.clear()
        self.refused(self.uploads.narinfo(one.digest), NotFound)
        self.refused(self.uploads.nar(key), NotFound)
        self.refused(self.uploads.stat_nar(key), NotFound)
        self.assertEqual([], self.origin.log)

    def test_a_path_that_only_an_upstream_has_is_absent(self) -> None:
        """The path is absent also if its narinfo is known, so a client uploads it."""
        self.assertAbsent(self.one, self.one.key)
        self.learn(self.one)
        self.assertAbsent(self.one, self.one.key)

    def test_a_path_that_came_from_an_upstream_is_here(self) -> None:
        """A stored path need not be uploaded; its NAR is also found by the hash of its file."""
        self.learn(self.one)
        self.download(self.one.key)
        found = self.get(self.uploads.narinfo(self.one.digest))
        self.assertEqual((Outcome.HIT, None), (found.outcome, found.may_repeat))
        for key in (self.one.key, self.one.conventional):
            size, outcome = self.get(self.uploads.stat_nar(key))
            self.assertEqual((len(self.one.file), Outcome.HIT), (size, outcome))

    def test_an_upload_is_here_at_once(self) -> None:
        """The NAR is here before its narinfo, then both are; clients can read them."""
        one = upload()
        self.refused(self.uploads.narinfo(one.digest), NotFound)
        self.refused(self.uploads.stat_nar(one.conventional), NotFound)
        self.put_nar(one)
        self.assertEqual(len(one.file), self.get(self.uploads.stat_nar(one.conventional))[0])
        self.refused(self.uploads.narinfo(one.digest), NotFound)
        self.put_narinfo(one)
        self.get(self.uploads.narinfo(one.digest))
        opened = self.get(self.uploads.nar(one.conventional))
        body = self.get(opened.body())
        body.close()
        opened.close()

    def test_lost_bytes_are_uploaded_again(self) -> None:
        """ncps notices a row without bytes, for which a client would skip the upload."""
        one = upload()
        self.put(one)
        self.clock.advance(SETTLED_S + 1)
        del self.store.objects[one.conventional]
        self.refused(self.uploads.narinfo(one.digest), NotFound)
        self.refused(self.uploads.stat_nar(one.conventional), NotFound)
        self.put(one)
        self.get(self.uploads.narinfo(one.digest))

    def test_fresh_bytes_need_not_be_seen(self) -> None:
        """A network file system may show an old state, so a row of the last minute is believed."""
        one = upload()
        self.put(one)
        del self.store.objects[one.conventional]
        self.get(self.uploads.narinfo(one.digest))

    def test_an_unsure_answer_is_no_absence(self) -> None:
        """While the database is away, the client must try again."""
        self.catalog.failing = Unavailable("away")
        self.refused(self.uploads.narinfo(self.one.digest), Unavailable)
        self.refused(self.uploads.stat_nar(self.one.key), Unavailable)
