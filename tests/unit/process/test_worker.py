"""Plan: the facts that a worker gets at its start."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.cli import WORKER
from ncps.errors import Refused
from ncps.process.listeners import Listener
from ncps.process.worker import Plan

PLAN = Plan(
    number=2,
    count=3,
    life=4,
    run="/run/x",
    via="ncps-1",
    locks=2,
    listeners=(
        Listener(host="::1", port=80, backlog=9, fd=9, family=10),
        Listener(fd=10, family=1),
    ),
)


class PlanTests(SynchronousTestCase):
    def test_it_is_read_once(self) -> None:
        """A plan is read as it was written, and removed for children of the worker."""
        environ = {WORKER: PLAN.render(), "HOME": "/"}
        self.assertEqual(PLAN, Plan.take(environ))
        self.assertEqual({"HOME": "/"}, environ)

    def test_descriptors_are_known(self) -> None:
        """The descriptors are lifeline, reports, settings, loads, locks, and listeners."""
        self.assertEqual([3, 4, 5, 6, 7, 8, 9, 10], PLAN.descriptors())

    def test_nonsense_is_refused(self) -> None:
        """An invalid plan is an error that says so."""
        for text in ("", "1", "[]", "{}", '{"number": 1}', '{"listeners": [{"x": 1}]}'):
            error = self.assertRaises(Refused, Plan.take, {WORKER: text})
            self.assertIn(WORKER, str(error))
        self.assertRaises(Refused, Plan.take, {})
