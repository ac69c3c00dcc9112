"""Tests of leases that this process grants while the backend is away."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.locks.degraded import DegradedGrants
from tests.contract.running import start


class DegradedGrantsTests(SynchronousTestCase):
    def test_fences_grow(self) -> None:
        """Fences also grow if the clock stops or is set back."""
        now = [1000.0]
        grants = DegradedGrants(wall=lambda: now[0])
        fences = [grants.take("a").fence]
        for name, wall in (("b", 1000.0), ("c", 900.0), ("d", 1001.0)):
            now[0] = wall
            fences.append(grants.take(name).fence)
        self.assertEqual([10**9, 10**9 + 1, 10**9 + 2, 1001 * 10**6], fences)

    def test_a_grant_is_forgotten_when_it_is_given_back(self) -> None:
        """A name is held until it is given back; a second time changes nothing."""
        grants = DegradedGrants(address="here")
        grant = grants.take("a")
        self.assertIn("a", grants)
        self.assertFalse(grant.is_lost)
        self.successResultOf(start(grant.give_back()))
        self.assertNotIn("a", grants)
        grants.take("a")
        self.successResultOf(start(grant.give_back()))
        self.assertIn("a", grants)
