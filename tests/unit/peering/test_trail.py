"""Trail: the caches through which a question has come."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.errors import Malformed
from ncps.peering import trail
from ncps.peering.trail import MAX_NAMES, NO_TRAIL, Trail

A, B, OWN = "ncps-aaaa00000000", "ncps-bbbb00000000", "ncps-0123456789ab"


class TrailTests(SynchronousTestCase):
    def test_only_caches_like_us_are_read(self) -> None:
        """A proxy in between is no cache that asks us back."""
        header = f"1.1 varnish (Varnish/7.1), 1.1 {A} , HTTP/2 x,1.1 {B}, 1.1 ncps, ,1.1 {A}x"
        self.assertEqual(Trail((A, B)), trail.read_via(header, OWN))
        self.assertEqual(NO_TRAIL, trail.read_via("", OWN))

    def test_number_of_a_question(self) -> None:
        """The first cache gives the number, each cache passes it on, and two questions have two."""
        headers = []
        for _ in range(2):
            with trail.asking():
                headers.append(trail.via(A))
                with trail.asking():
                    self.assertEqual(headers[-1], trail.via(A))
        first, second = (trail.read_via(header, OWN) for header in headers)
        self.assertEqual(((A,), False), (first.names, first.has_come_round))
        self.assertFalse(first.is_other_way_of(second))
        with trail.following(first), trail.asking():
            beyond = trail.read_via(trail.via(B), OWN)
        self.assertEqual((A, B), beyond.names)
        self.assertTrue(beyond.is_other_way_of(first))
        self.assertFalse(NO_TRAIL.is_other_way_of(NO_TRAIL))
        self.assertTrue(trail.read_via(headers[0], A).has_come_round)

    def test_own_name(self) -> None:
        """Our own name at any place in the trail means that the question is our own."""
        for header in (f"1.1 {OWN}, 1.1 {A}", f"1.1 {A}, 1.1 {OWN}"):
            self.assertTrue(trail.read_via(header, OWN).has_come_round)
        self.assertFalse(trail.read_via(f"1.1 {A}", OWN).has_come_round)

    def test_length_is_bounded(self) -> None:
        """A question that has come through very many caches is refused."""
        header = ", ".join(f"1.1 ncps-{number:012x}" for number in range(MAX_NAMES))
        self.assertEqual(MAX_NAMES, len(trail.read_via(header, OWN).names))
        self.assertRaises(Malformed, trail.read_via, f"{header}, 1.1 {A}", OWN)

    def test_our_questions_have_the_whole_trail(self) -> None:
        """Each cache adds its name to those of the others."""
        self.assertEqual(f"1.1 {OWN}", trail.via(OWN))
        with trail.following(Trail((A, B))):
            self.assertEqual(f"1.1 {A}, 1.1 {B}, 1.1 {OWN}", trail.via(OWN))
        self.assertEqual(NO_TRAIL, trail.current())

    def test_a_job_keeps_the_trail_of_its_request(self) -> None:
        """The job goes on after the request has ended; other requests do not change its trail."""
        tasks, gate, seen = Tasks(Clock()), Deferred[None](), list[Trail]()

        async def job() -> None:
            await gate
            seen.append(trail.current())

        with trail.following(Trail((A,))):
            tasks.start("job", job())
        with trail.following(Trail((B,))):
            gate.callback(None)
        self.assertEqual([Trail((A,))], seen)
