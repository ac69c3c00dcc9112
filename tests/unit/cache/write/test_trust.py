"""Trust in uploads, where signatures are required."""

from __future__ import annotations

from attrs import evolve

from ncps.errors import Malformed, Refused
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.hashes import sha256_of
from ncps.nix.keys import SecretKey
from tests.fakes.samples import UPSTREAM_KEY, addressed, file_sample
from tests.unit.cache.write.rig import UPLOAD_KEY, UploadCase, by, upload


class TrustTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(needs_signature=True, keys=(UPLOAD_KEY.public,))

    def test_a_key_for_uploads_vouches(self) -> None:
        """A narinfo that it has signed is accepted."""
        self.put(by(upload()))

    def test_no_other_key_vouches(self) -> None:
        """Without a signature, with that of an upstream or of a stranger, or altered: refused."""
        one = upload()
        self.put_nar(one)
        stranger = SecretKey.generate(UPLOAD_KEY.name)
        forged = by(one)
        forged = evolve(forged, narinfo=evolve(forged.narinfo, nar_size=one.narinfo.nar_size + 1))
        for bad in (one, by(one, UPSTREAM_KEY), by(one, stranger), forged):
            self.assertIn("cache-trusted-upload-key", self.refuse_narinfo(bad, Refused))
        self.assertNotIn(one.digest, self.catalog.entries)

    def test_without_keys_nothing_is_accepted(self) -> None:
        """If the rule has no keys, ncps refuses every narinfo."""
        self.make(needs_signature=True)
        one = by(upload())
        self.put_nar(one)
        self.refuse_narinfo(one, Refused)

    def test_a_content_address_vouches(self) -> None:
        """A path that follows from its CA needs no signature, once its contents were compared."""
        source = upload("source")
        source = addressed(source, ContentAddress("nar", source.narinfo.nar_hash))
        for one in (source, file_sample("text", method="text"), file_sample("flat")):
            self.put(one)
            self.get(self.narinfos.get(one.digest))

    def test_contents_that_another_process_has_stored_again_are_compared(self) -> None:
        """The NAR was evicted and uploaded again there, and its object is another one."""
        one = file_sample("text", method="text")
        self.put_nar(one)
        remembering = self.uploads
        self.get(self.catalog.mark_missing(one.conventional))
        self.get(self.store.delete(one.conventional))
        self.patch(self.store, "tag", lambda _: "of another object")
        self.make(needs_signature=True)
        self.put_nar(one)
        self.uploads = remembering
        self.put_narinfo(one)

    def test_a_content_address_must_be_true(self) -> None:
        """A CA from which the path follows, and which its contents do not have, is refused."""
        lying = addressed(upload("lying"), ContentAddress("nar", sha256_of(b"other")))
        self.put_nar(lying)
        self.refuse_narinfo(lying, Refused)
        lying = addressed(upload("false"), ContentAddress("text", sha256_of(b"other")))
        self.put_nar(lying)
        self.refuse_narinfo(lying, Malformed)
        for one in (lying,):
            self.assertNotIn(one.digest, self.catalog.entries)
