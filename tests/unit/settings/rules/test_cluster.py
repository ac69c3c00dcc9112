"""Settings of several instances: contradictions are errors at the start."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.problems import InvalidSettings
from tests.unit.settings.around import load_with

ADDRESS = {"cluster-advertise-url": ["http://10.0.0.7:8501/"]}
SECRET = {"cluster-secret": ["sixteen letters!"]}
DATABASE = {"cache-database-url": ["postgresql://ncps@db/ncps"]}


class ClusterTests(SynchronousTestCase):
    def problems(self, **flags: list[str]) -> list[str]:
        with self.assertRaises(InvalidSettings) as caught:
            load_with(flags)
        return list(caught.exception.problems)

    def test_instances_know_each_other_by_a_secret(self) -> None:
        """An address without a secret is useless, so it is refused."""
        (problem,) = self.problems(**ADDRESS, **DATABASE)
        self.assertIn("needs cluster-secret", problem)
        problems = self.problems(**ADDRESS, **DATABASE, **{"cluster-secret": ["short"]})
        self.assertIn("at least 16 characters", problems[0])
        found = load_with({**ADDRESS, **SECRET, **DATABASE}).cluster
        self.assertEqual("http://10.0.0.7:8501", found.advertise_url)
        self.assertNotIn("sixteen", repr(found))

    def test_one_machine_has_no_peers(self) -> None:
        """With SQLite, several machines would have separate databases."""
        (problem,) = self.problems(**ADDRESS, **SECRET)
        self.assertIn("SQLite", problem)
        self.assertIn("PostgreSQL or MySQL", problem)
