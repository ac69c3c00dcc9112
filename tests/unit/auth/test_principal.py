"""The rights of a principal."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.principal import ANONYMOUS, NOBODY, Principal, Scope


class PrincipalTests(SynchronousTestCase):
    def test_scopes(self) -> None:
        """Only an act whose scope was granted is allowed."""
        writer = Principal(name="ci", scopes=frozenset({Scope.READ, Scope.WRITE}))
        self.assertTrue(writer.may(Scope.WRITE))
        self.assertFalse(writer.may(Scope.DELETE))

    def test_admin(self) -> None:
        """An administrator may do everything."""
        admin = Principal(name="root", scopes=frozenset({Scope.ADMIN}))
        self.assertTrue(all(admin.may(scope) for scope in Scope))

    def test_paths(self) -> None:
        """The pattern must match the whole base name, once it is known."""
        bound = Principal(
            name="ci", scopes=frozenset({Scope.WRITE}), paths=re.compile("[^-]+-mine-.*")
        )
        self.assertTrue(bound.may(Scope.WRITE))
        self.assertTrue(bound.may(Scope.WRITE, "0" * 32 + "-mine-1.0"))
        self.assertFalse(bound.may(Scope.WRITE, "0" * 32 + "-not-mine-1.0"))

    def test_without_credentials(self) -> None:
        """Reads are open by default, and nothing else is."""
        self.assertEqual([Scope.READ], [scope for scope in Scope if ANONYMOUS.may(scope)])
        self.assertFalse(any(NOBODY.may(scope) for scope in Scope))
