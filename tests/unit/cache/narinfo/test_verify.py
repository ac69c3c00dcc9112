"""Verified narinfos and sidecars: the narinfo of an upstream is judged, rewritten and kept."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.narinfo.record import parse_sidecar, render_sidecar
from ncps.cache.narinfo.verify import MAX_SIGNATURES, MAX_URL, NarInfoVerifier, Vetted
from ncps.errors import Malformed, Unusable
from ncps.nix.keys import SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.references import LONG
from ncps.nix.storepath import StorePath
from ncps.ports.catalog import CONTENT
from tests.fakes.samples import (
    OWN_KEY,
    UPSTREAM_KEY,
    file_sample,
    sample,
    signed,
    tree_sample,
)
from tests.fakes.threads import HeldThreads
from tests.fixtures import CONTENT_ADDRESSED

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class VettingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = sample(size=5000)
        self.narinfo = self.sample.narinfo
        self.vetting = NarInfoVerifier(
            trusted=(SecretKey.generate("other-1").public, UPSTREAM_KEY.public),
            own=OWN_KEY,
            name=OWN_KEY.name,
        )

    def vet(self, narinfo: NarInfo) -> Vetted:
        return self.vetting.vet(narinfo, digest=self.sample.digest, upstream="http://u", now=NOW)

    def test_good_narinfo_is_signed_and_recorded(self) -> None:
        """A narinfo for which a trusted key vouches gets our signature beside the upstream's."""
        vetted = self.vet(self.narinfo)
        entry, nar = vetted.entry, vetted.nar
        self.assertTrue(entry.is_verified)
        names = [signature.name for signature in entry.narinfo.signatures]
        self.assertEqual([UPSTREAM_KEY.name, OWN_KEY.name], names)
        fingerprint = self.narinfo.fingerprint()
        self.assertTrue(verify_any([OWN_KEY.public], fingerprint, entry.narinfo.signatures))
        self.assertEqual(
            (self.sample.digest, "http://u", self.narinfo.url, NOW),
            (entry.digest, entry.upstream, entry.upstream_url, entry.fetched_at),
        )
        self.assertEqual(
            (self.sample.key, "xz", self.narinfo.file_size, self.narinfo.nar_hash, False),
            (nar.key, nar.compression, nar.file_size, nar.nar_hash, nar.is_stored),
        )

    def test_url_is_rewritten_and_remembered(self) -> None:
        """Clients see our name of the NAR; the record keeps where it came from."""
        vetted = self.vet(evolve(self.narinfo, url="https://cdn/some/uuid?token=1"))
        self.assertEqual(NarKey(self.narinfo.nar_hash.nix32, "xz").url, vetted.entry.narinfo.url)
        self.assertEqual("https://cdn/some/uuid?token=1", vetted.nar.origin_url)

    def test_many_references_are_judged_in_a_thread(self) -> None:
        """Those with few references are judged in the reactor's thread: that is fast."""
        threads = HeldThreads()
        vetting = evolve(self.vetting, workers=threads)

        def judge(narinfo: NarInfo) -> Deferred[Vetted]:
            digest = self.sample.digest
            return Deferred.fromCoroutine(vetting.judged(narinfo, digest, "http://u", NOW))

        self.assertEqual(self.vet(self.narinfo), self.successResultOf(judge(self.narinfo)))
        paths = [StorePath(f"{n:032d}", "x") for n in range(LONG + 1)]
        many = signed(evolve(self.narinfo, references=paths))
        judging = judge(many)
        self.assertNoResult(judging)
        threads.release()
        self.assertEqual(self.vet(many), self.successResultOf(judging))

    def test_what_is_recorded_with_many_references_is_judged_in_a_thread(self) -> None:
        """Signing it again takes as long as judging it the first time."""
        threads = HeldThreads()
        vetting = evolve(self.vetting, workers=threads)
        paths = [StorePath(f"{n:032d}", "x") for n in range(LONG + 1)]
        few, many = self.vet(self.narinfo), self.vet(signed(evolve(self.narinfo, references=paths)))
        for judge, more in ((vetting.vouched, ()), (vetting.merged, (many.entry,))):
            judging = Deferred.fromCoroutine(vetting.apart(judge, many.entry, *more))
            self.assertNoResult(judging)
            threads.release()
            self.assertEqual(many.entry, self.successResultOf(judging))
        proving = Deferred.fromCoroutine(vetting.proven(many))
        self.assertNoResult(proving)
        threads.release()
        self.assertEqual(CONTENT, self.successResultOf(proving).entry.verified_by)
        at_once = Deferred.fromCoroutine(vetting.apart(vetting.vouched, few.entry))
        self.assertEqual(few.entry, self.successResultOf(at_once))

    def test_names_of_signatures_come_first(self) -> None:
        """A narinfo without a signature under a configured name costs nothing expensive."""
        forged = evolve(self.narinfo, signatures=[SecretKey.generate("x-1").sign(b"y")])
        with mock.patch.object(NarInfo, "fingerprint", side_effect=AssertionError("too expensive")):
            self.assertRaises(Unusable, self.vet, forged)

    def test_other_path_counts_as_none(self) -> None:
        """A narinfo of another path is refused, although it is well signed."""
        self.assertRaises(Unusable, self.vet, sample("other", 10).narinfo)

    def test_bad_or_foreign_signature_counts_as_none(self) -> None:
        """A missing, a stranger's and a forged signature have the same effect."""
        forged = evolve(self.narinfo, nar_size=self.narinfo.nar_size + 1)
        stranger = signed(self.narinfo, SecretKey.generate("stranger-1"))
        impostor = signed(self.narinfo, SecretKey.generate(UPSTREAM_KEY.name))
        for bad in (forged, stranger, impostor, evolve(self.narinfo, signatures=())):
            self.assertRaises(Unusable, self.vet, bad)

    def test_unusable_url_counts_as_none(self) -> None:
        """A URL that names no file is the upstream's fault."""
        for url in ("?x", "nar/" + "x" * MAX_URL):
            self.assertRaises(Unusable, self.vet, evolve(self.narinfo, url=url))

    def test_flood_of_signatures_costs_little(self) -> None:
        """Not all of forty thousand forged signatures under a trusted name are checked."""
        forged = tuple(Signature(UPSTREAM_KEY.name, n.to_bytes(64, "big")) for n in range(20_000))
        flooded = evolve(self.narinfo, signatures=forged + self.narinfo.signatures)
        self.assertRaises(Unusable, self.vet, flooded)
        some = forged[: MAX_SIGNATURES - 1] + self.narinfo.signatures
        strangers = tuple(Signature(f"s{n}", bytes(64)) for n in range(1000))
        known = evolve(self.narinfo, signatures=strangers + some)
        self.assertTrue(self.vet(known).entry.is_verified)

    def test_without_keys_nothing_is_verified_or_signed(self) -> None:
        """If no key is configured, narinfos are served as they are."""
        self.vetting = evolve(self.vetting, trusted=())
        vetted = self.vet(evolve(self.narinfo, signatures=()))
        self.assertFalse(vetted.entry.is_verified)
        self.assertEqual((), vetted.entry.narinfo.signatures)

    def test_own_signature_is_made_again_or_not_at_all(self) -> None:
        """An old signature in our name is replaced; without signing, all stay as they were."""
        old = Signature(OWN_KEY.name, b"x" * 64)
        marked = evolve(self.narinfo, signatures=(old, *self.narinfo.signatures))
        self.assertEqual(2, len(self.vet(marked).entry.narinfo.signatures))
        self.assertNotIn(old, self.vet(marked).entry.narinfo.signatures)
        self.vetting = evolve(self.vetting, own=None)
        self.assertEqual(marked.signatures, self.vet(marked).entry.narinfo.signatures)

    def test_sidecar_gives_back_what_the_upstream_said(self) -> None:
        """The upstream's own narinfo can be parsed from the sidecar."""
        told = evolve(self.narinfo, url="https://cdn/some/uuid")
        text = render_sidecar(self.vet(told).entry, {OWN_KEY.name})
        self.assertEqual((told, "http://u"), parse_sidecar(text))
        self.assertEqual(told, NarInfo.parse(text))

    def test_sidecars_of_others(self) -> None:
        """A plain narinfo is a sidecar without an upstream; other text is none."""
        text = self.narinfo.render()
        self.assertEqual((self.narinfo, ""), parse_sidecar(text))
        entry = evolve(self.vet(self.narinfo).entry, upstream_url="", upstream="")
        renamed = evolve(self.narinfo, url=self.sample.key.url)
        self.assertEqual((renamed, ""), parse_sidecar(render_sidecar(entry, {OWN_KEY.name})))
        self.assertRaises(Malformed, parse_sidecar, b"<html>")


class ContentAddressTests(SynchronousTestCase):
    """The CA is not signed. Nix 2.8 and 2.26 refuse a path for a wrong one, or crash."""

    def setUp(self) -> None:
        self.vetting = NarInfoVerifier(
            trusted=(UPSTREAM_KEY.public,), own=OWN_KEY, name=OWN_KEY.name
        )

    def vet(self, narinfo: NarInfo) -> Vetted:
        return self.vetting.vet(
            narinfo, digest=narinfo.store_path.digest, upstream="http://u", now=NOW
        )

    def told(self, narinfo: NarInfo) -> str | None:
        return self.vet(narinfo).entry.narinfo.ca

    def test_right_one_is_told(self) -> None:
        """It is in Nix's spelling, if a key or the CA vouches for the rest."""
        for one in (tree_sample(), tree_sample(algorithm="sha1"), file_sample()):
            ca = one.narinfo.ca
            self.assertEqual(ca, self.told(one.narinfo))
            self.assertEqual(ca, self.told(signed(one.narinfo)))
        one = tree_sample()
        spelled = evolve(one.narinfo, ca=f"fixed:r:sha256:{one.narinfo.nar_hash.hex}")
        self.assertEqual(one.narinfo.ca, self.told(spelled))

    def test_wrong_one_beside_a_good_signature_is_left_out(self) -> None:
        """Clients get the rest of the narinfo, which is right."""
        narinfo, nix32 = sample().narinfo, "0" * 52
        for ca in (
            "nonsense",
            f"fixed:r:{narinfo.nar_hash}",
            f"fixed:r:sha256:{nix32}",
            f"text:sha256:{nix32}",
            f"fixed:sha256:{nix32}",
            "fixed:r:sha1:" + "0" * 32,
            "text:md5:" + "0" * 26,
            "fixed:git:sha1:" + "0" * 32,
        ):
            for vetting in (self.vetting, evolve(self.vetting, trusted=())):
                self.vetting = vetting
                self.assertIsNone(self.told(evolve(narinfo, ca=ca)), ca)
            self.setUp()
            self.assertTrue(self.vet(evolve(narinfo, ca=ca)).entry.is_verified)

    def test_one_that_the_contents_do_not_have_is_left_out(self) -> None:
        """A CA is left out if a key vouches for another NarHash."""
        one = tree_sample()
        other = signed(evolve(one.narinfo, nar_hash=sample().narinfo.nar_hash))
        self.assertIsNone(self.told(other))

    def test_one_of_a_path_that_refers_to_itself_is_left_out(self) -> None:
        """Nix 2.8 and 2.26 do not agree on its hash: each refuses the path of the other."""
        for file in CONTENT_ADDRESSED.glob("*.narinfo"):
            narinfo = NarInfo.parse(file.read_bytes())
            refers_to_itself = narinfo.store_path in narinfo.references
            self.assertEqual(refers_to_itself, self.told(signed(narinfo)) is None)
            self.assertEqual(narinfo.ca, self.told(narinfo))
            self.assertTrue(self.vet(signed(narinfo)).entry.is_verified)

    def test_paths_of_nix_need_their_bytes_or_not(self) -> None:
        """Only `fixed:r:sha256:` of a path that does not refer to itself is NarHash."""
        for file in CONTENT_ADDRESSED.glob("*.narinfo"):
            narinfo = NarInfo.parse(file.read_bytes())
            assert narinfo.ca is not None
            is_sure = narinfo.ca == f"fixed:r:{narinfo.nar_hash}"
            vetted = self.vet(narinfo)
            self.assertEqual(is_sure, vetted.unproven is None)
            self.assertEqual(is_sure, vetted.entry.is_verified)
            self.assertEqual(1 if is_sure else 0, len(vetted.entry.narinfo.signatures))
            proven = vetted
            if not is_sure:
                proving = Deferred.fromCoroutine(self.vetting.proven(vetted))
                proven = self.successResultOf(proving)
            self.assertTrue(proven.entry.is_verified)
            self.assertIsNone(proven.unproven)
            fingerprint, signatures = narinfo.fingerprint(), proven.entry.narinfo.signatures
            self.assertTrue(verify_any([OWN_KEY.public], fingerprint, signatures))

    def test_foreign_and_forged_ones_beside_it_do_not_matter(self) -> None:
        """A content address vouches with any signatures, and without."""
        one = tree_sample()
        for key in (SecretKey.generate("stranger-1"), SecretKey.generate(UPSTREAM_KEY.name)):
            vetted = self.vet(signed(one.narinfo, key))
            self.assertTrue(vetted.entry.is_verified)
            names = [signature.name for signature in vetted.entry.narinfo.signatures]
            self.assertEqual([key.name, OWN_KEY.name], names)

    def test_it_stays_with_its_new_name(self) -> None:
        """A narinfo that must be proved must also be proved under another URL."""
        vetted = self.vet(file_sample().narinfo)
        self.assertIsNotNone(vetted.unproven)
        self.assertEqual(vetted.unproven, vetted.named(vetted.nar.key).unproven)
