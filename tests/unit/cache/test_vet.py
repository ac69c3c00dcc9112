"""Vetting and sidecars: what an upstream says, judged, rewritten, and kept as it was said."""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache import sidecar
from ncps.cache.vet import MAX_SIGNATURES, Vetted, Vetting
from ncps.errors import Corrupt, Malformed
from ncps.nix.keys import SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY, sample, signed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class VettingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = sample(size=5000)
        self.narinfo = self.sample.narinfo
        self.vetting = Vetting(
            trusted=(SecretKey.generate("other-1").public, UPSTREAM_KEY.public),
            own=OWN_KEY,
            name=OWN_KEY.name,
        )

    def vet(self, narinfo: NarInfo) -> Vetted:
        return self.vetting.vet(narinfo, digest=self.sample.digest, upstream="http://u", now=NOW)

    def test_good_narinfo_is_signed_and_recorded(self) -> None:
        """What a trusted key vouches for gets our signature beside the upstream's."""
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
        """Clients see our name of the NAR; where it came from is kept."""
        vetted = self.vet(evolve(self.narinfo, url="https://cdn/some/uuid?token=1"))
        self.assertEqual(NarKey(self.narinfo.nar_hash.nix32, "xz").url, vetted.entry.narinfo.url)
        self.assertEqual("https://cdn/some/uuid?token=1", vetted.nar.origin_url)

    def test_other_path_is_corrupt(self) -> None:
        """A narinfo of another path is not what was asked for, however well signed."""
        self.assertRaises(Corrupt, self.vet, sample("other", 10).narinfo)

    def test_bad_or_foreign_signature_is_corrupt(self) -> None:
        """Nobody's word, a stranger's and a forged one count alike."""
        forged = evolve(self.narinfo, nar_size=self.narinfo.nar_size + 1)
        stranger = signed(self.narinfo, SecretKey.generate("stranger-1"))
        impostor = signed(self.narinfo, SecretKey.generate(UPSTREAM_KEY.name))
        for bad in (forged, stranger, impostor, evolve(self.narinfo, signatures=())):
            self.assertRaises(Corrupt, self.vet, bad)

    def test_unusable_url_is_corrupt(self) -> None:
        """A URL that names no file is the upstream's fault."""
        self.assertRaises(Corrupt, self.vet, evolve(self.narinfo, url="?x"))

    def test_flood_of_signatures_costs_little(self) -> None:
        """Forty thousand forged signatures under a trusted name are not all tried."""
        forged = tuple(Signature(UPSTREAM_KEY.name, n.to_bytes(64, "big")) for n in range(20_000))
        flooded = evolve(self.narinfo, signatures=forged + self.narinfo.signatures)
        self.assertRaises(Corrupt, self.vet, flooded)
        some = forged[: MAX_SIGNATURES - 1] + self.narinfo.signatures
        strangers = tuple(Signature(f"s{n}", b"") for n in range(1000))
        known = evolve(self.narinfo, signatures=strangers + some)
        self.assertTrue(self.vet(known).entry.is_verified)

    def test_without_keys_nothing_is_verified_or_signed(self) -> None:
        """Where no key is configured narinfos pass as they are."""
        self.vetting = evolve(self.vetting, trusted=())
        vetted = self.vet(evolve(self.narinfo, signatures=()))
        self.assertFalse(vetted.entry.is_verified)
        self.assertEqual((), vetted.entry.narinfo.signatures)

    def test_own_signature_is_made_anew_or_not_at_all(self) -> None:
        """An old signature in our name is replaced; without signing all stay as they were."""
        old = Signature(OWN_KEY.name, b"x" * 64)
        marked = evolve(self.narinfo, signatures=(old, *self.narinfo.signatures))
        self.assertEqual(2, len(self.vet(marked).entry.narinfo.signatures))
        self.assertNotIn(old, self.vet(marked).entry.narinfo.signatures)
        self.vetting = evolve(self.vetting, own=None)
        self.assertEqual(marked.signatures, self.vet(marked).entry.narinfo.signatures)

    def test_sidecar_gives_back_what_the_upstream_said(self) -> None:
        """From the text beside a NAR the upstream's own narinfo can be read again."""
        told = evolve(self.narinfo, url="https://cdn/some/uuid")
        text = sidecar.render(self.vet(told).entry, OWN_KEY.name)
        self.assertEqual((told, "http://u"), sidecar.parse(text))
        self.assertEqual(told, NarInfo.parse(text))

    def test_sidecars_of_others(self) -> None:
        """A plain narinfo is a sidecar without upstream, and other text is none."""
        text = self.narinfo.render()
        self.assertEqual((self.narinfo, ""), sidecar.parse(text))
        entry = evolve(self.vet(self.narinfo).entry, upstream_url="", upstream="")
        renamed = evolve(self.narinfo, url=self.sample.key.url)
        self.assertEqual((renamed, ""), sidecar.parse(sidecar.render(entry, OWN_KEY.name)))
        self.assertRaises(Malformed, sidecar.parse, b"<html>")
