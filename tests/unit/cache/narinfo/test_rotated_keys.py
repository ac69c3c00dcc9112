"""A rotation: the former key signs for a time, and its signatures stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import evolve

from ncps.nix.keyring import FormerKey
from ncps.nix.keys import SecretKey, verify_any
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY
from tests.unit.cache.narinfo.test_naming import NamesCase


class RotatedKeyTests(NamesCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.new = SecretKey.generate(f"{OWN_KEY.name}-2")
        self.former = FormerKey(key=OWN_KEY, since=self.time, until=self.time + timedelta(days=30))
        self.origin.add(self.p)

    def rotate(self) -> None:
        self.vetting = evolve(self.vetting, now=lambda: self.time)
        self.vetting.use(self.new, (self.former,))
        self.restart()

    def assert_signed(self, *keys: SecretKey) -> None:
        """Check that these keys have signed the narinfo, and each of ours only once."""
        told = self.told(self.p)
        ours = [s for s in told.signatures if s.name != UPSTREAM_KEY.name]
        self.assertEqual(sorted(key.name for key in keys), sorted(s.name for s in ours))
        for key in keys:
            self.assertTrue(verify_any([key.public], told.fingerprint(), ours), key.name)

    def test_what_is_fetched_after_a_rotation(self) -> None:
        """Both keys sign it, so that no client must change at that moment."""
        self.rotate()
        self.assert_signed(OWN_KEY, self.new)
        self.restart()
        self.assert_signed(OWN_KEY, self.new)

    def test_what_is_fetched_after_the_overlap(self) -> None:
        """Only the new key signs it."""
        self.rotate()
        self.time = self.former.until
        self.assert_signed(self.new)

    def test_what_was_fetched_before(self) -> None:
        """Its signature stays, also after the overlap, and the new one is added."""
        self.assert_signed(OWN_KEY)
        self.rotate()
        self.assert_signed(OWN_KEY, self.new)
        self.time = self.former.until + timedelta(days=1)
        self.restart()
        self.assert_signed(OWN_KEY, self.new)

    def test_a_replica_that_does_not_know_yet(self) -> None:
        """It signs only with its own key; the others add theirs to its records."""
        self.rotate()
        self.told(self.p)
        former = evolve(self.vetting, own=OWN_KEY, name=OWN_KEY.name, former=())
        self.vetting, new = former, self.vetting
        self.restart()
        self.assert_signed(OWN_KEY)
        self.vetting = new
        self.restart()
        self.assert_signed(OWN_KEY, self.new)

    def test_sidecars_have_no_signature_of_ours(self) -> None:
        """The sidecar has the upstream's text."""
        self.rotate()
        self.told(self.p)
        self.fetched(self.named(self.p))
        self.assertNotEqual({}, self.sidecars.texts)
        for text in self.sidecars.texts.values():
            self.assertNotIn(OWN_KEY.name.encode(), text)
