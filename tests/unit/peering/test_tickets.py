"""Tickets are valid for the request that they were made for, and for no other."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.peering.tickets import (
    GOOD_FOR_S,
    SCHEME,
    Request,
    Ticket,
    TicketVerdict,
    TicketVerifier,
    stated_time,
)

SECRET = "a secret of the cluster"
HERE, ELSEWHERE = "http://10.0.0.7:8501", "http://10.0.0.8:8501"
NOW = 1_700_000_000.5
WANTED = Request(method="GET", path="/cluster/nar/x.nar", offset="7", worker="unix:/run/2")


class TicketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.verifier = TicketVerifier(SECRET, [HERE, "unix:/run/1"])
        self.ticket = Ticket.make(SECRET, HERE, NOW, WANTED)

    def look(
        self, ticket: Ticket, request: Request = WANTED, now: float = NOW, secret: str = SECRET
    ) -> TicketVerdict:
        return TicketVerifier(secret, [HERE]).look(ticket.header(), request, now)

    def test_good_ticket(self) -> None:
        """It is valid at each address of the asked process, and does not reveal the secret."""
        for audience in (HERE, "unix:/run/1"):
            ticket = Ticket.make(SECRET, audience, NOW, WANTED)
            self.assertIs(TicketVerdict.GOOD, self.verifier.look(ticket.header(), WANTED, NOW))
            self.assertNotIn(SECRET, ticket.header())

    def test_for_one_request(self) -> None:
        """Method, path, offset and worker must be those of the ticket."""
        for other in (
            evolve(WANTED, method="HEAD"),
            evolve(WANTED, path="/cluster/nar/y.nar"),
            evolve(WANTED, offset="8"),
            evolve(WANTED, offset="07"),
            evolve(WANTED, worker=""),
            evolve(WANTED, worker="unix:/run/3"),
        ):
            self.assertIs(TicketVerdict.STRANGER, self.look(self.ticket, other), other)

    def test_parts_do_not_run_together(self) -> None:
        """The end of one part cannot become the beginning of the next one."""
        one = Ticket.make(SECRET, HERE, NOW, Request(method="GET", path="/a", offset="12"))
        other = Request(method="GET", path="/a1", offset="2")
        self.assertIs(TicketVerdict.STRANGER, self.look(one, other))

    def test_for_one_secret(self) -> None:
        """Neither another secret nor an empty one makes a valid ticket."""
        self.assertIs(TicketVerdict.STRANGER, self.look(self.ticket, secret="another secret"))
        empty = Ticket.make("", HERE, NOW, WANTED)
        self.assertIs(TicketVerdict.STRANGER, self.look(empty, secret=""))

    def test_for_one_audience(self) -> None:
        """For another address it is misdirected; with a changed address it is invalid."""
        there = Ticket.make(SECRET, ELSEWHERE, NOW, WANTED)
        self.assertIs(TicketVerdict.MISDIRECTED, self.look(there))
        self.assertIs(TicketVerdict.STRANGER, self.look(evolve(there, audience=HERE)))
        nobody = TicketVerifier(SECRET, [])
        self.assertIs(TicketVerdict.MISDIRECTED, nobody.look(self.ticket.header(), WANTED, NOW))

    def test_for_one_time(self) -> None:
        """A clock may differ by a bounded time; a changed time makes the ticket invalid."""
        for apart, verdict in (
            (GOOD_FOR_S - 1, TicketVerdict.GOOD),
            (1 - GOOD_FOR_S, TicketVerdict.GOOD),
            (GOOD_FOR_S + 1, TicketVerdict.UNTIMELY),
            (-GOOD_FOR_S - 1, TicketVerdict.UNTIMELY),
        ):
            self.assertIs(verdict, self.look(self.ticket, now=NOW + apart), apart)
        later = evolve(self.ticket, time=self.ticket.time + GOOD_FOR_S)
        self.assertIs(TicketVerdict.STRANGER, self.look(later, now=NOW + GOOD_FOR_S))

    def test_invalid_tickets(self) -> None:
        """Any other header, and none, is a stranger's."""
        header = self.ticket.header()
        for text in (
            "",
            f"Bearer {SECRET}",
            f"{SCHEME} {SECRET}",
            header.lower(),
            header + " ",
            f"{header}, x=y",
            header.replace(HERE, ""),
            header.replace("time=", "time=-"),
            header.replace("time=", f"time={'1' * 20}"),
            header.replace("signature=", "signature=0"),
            header.replace('for="', 'for="\xff'),
        ):
            with self.assertRaises(Malformed):
                Ticket.parse(text)
            self.assertIs(TicketVerdict.STRANGER, self.verifier.look(text, WANTED, NOW), text)

    def test_any_address_can_be_written(self) -> None:
        """Paths of sockets may have any characters."""
        for audience in ('unix:/run/a "b"\\%20,c', "unix:/tmp/ü\n", "http://[fd00::1]:8501/x"):
            ticket = Ticket.make(SECRET, audience, NOW, WANTED)
            self.assertEqual(ticket, Ticket.parse(ticket.header()))
            self.assertTrue(ticket.header().isascii() and ticket.header().isprintable())


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ticket = Ticket.make(SECRET, HERE, NOW, WANTED)
        self.clock = TicketVerifier(SECRET, [HERE]).clock(self.ticket.header(), NOW + 3600)

    def test_time_that_is_told(self) -> None:
        """With the time of the asked process the next ticket is valid."""
        told = stated_time(SECRET, self.ticket, self.clock)
        assert told is not None
        self.assertEqual(int(NOW) + 3600, told)
        again = Ticket.make(SECRET, HERE, told, WANTED).header()
        self.assertIs(
            TicketVerdict.GOOD, TicketVerifier(SECRET, [HERE]).look(again, WANTED, NOW + 3600)
        )

    def test_a_wrong_secret_cannot_state_the_time(self) -> None:
        """Without the secret, for another ticket, or changed, the time is not believed."""
        other = Ticket.make(SECRET, ELSEWHERE, NOW, WANTED)
        for ticket, secret, text in (
            (self.ticket, "another secret", self.clock),
            (other, SECRET, self.clock),
            (self.ticket, SECRET, self.clock.replace("time=1", "time=2")),
            (self.ticket, SECRET, ""),
            (self.ticket, SECRET, "time=1700003600"),
            (self.ticket, SECRET, f"time=1700003600, signature={self.ticket.signature}"),
        ):
            self.assertIsNone(stated_time(secret, ticket, text))
