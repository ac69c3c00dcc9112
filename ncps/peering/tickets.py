"""Tickets: by them, processes of one cache recognize each other without sending their secret.

    Authorization: NCPS-HMAC-SHA256 for="<audience>", time=<seconds>, signature=<hex>
    X-Ncps-Clock:  time=<seconds>, signature=<hex>

A ticket is valid for one request, at one address and one time. The address is its audience: the
address that the asked process advertises. So a stranger that receives a ticket cannot use it
elsewhere, because the ticket names the stranger's own address. Somebody who reads the network can
repeat a request at the same address for `GOOD_FOR_S` seconds.

Clocks may differ. If only the time of a ticket is wrong, the asked process answers with its own
time, signed for this ticket, and the client makes another ticket by that clock. Only a process with
the secret can sign a time, so no stranger gets tickets for other times.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from enum import Enum, auto
from typing import Final, Self
from urllib.parse import quote, unquote

from attrs import frozen

from ncps.errors import Malformed

SCHEME: Final = "NCPS-HMAC-SHA256"
GOOD_FOR_S: Final = 60
"""Seconds by which the time of a ticket may differ from the clock of the asked process."""

_TICKET: Final = re.compile(
    rf'{SCHEME} for="([!#-\[\]-~]{{1,4096}})", time=([0-9]{{1,12}}), signature=([0-9a-f]{{64}})'
)
_CLOCK: Final = re.compile(r"time=([0-9]{1,12}), signature=([0-9a-f]{64})")
_SAFE: Final = "/:[]@"


@frozen(kw_only=True)
class Request:
    """The request for which a ticket is valid.

    :param path: the path as the asked process sees it.
    :param offset: the first byte wanted, as the request has it.
    :param worker: address of the worker to ask; empty for any.
    """

    method: str
    path: str
    offset: str = "0"
    worker: str = ""


@frozen(kw_only=True)
class Ticket:
    """A signed proof that a process of this cache makes a request.

    :param audience: the address to which the request is sent.
    :param time: the time of the request, in seconds since 1970.
    """

    audience: str
    time: int
    signature: str

    @classmethod
    def make(cls, secret: str, audience: str, time: float, request: Request) -> Self:
        """Make a ticket: sign a request."""
        signature = _request_signature(secret, audience, int(time), request)
        return cls(audience=audience, time=int(time), signature=signature)

    @classmethod
    def parse(cls, header: str) -> Self:
        """Parse the value of an Authorization header. Raises Malformed if it is no ticket."""
        match = _TICKET.fullmatch(header)
        if match is None:
            raise Malformed("not a ticket")
        return cls(audience=unquote(match[1]), time=int(match[2]), signature=match[3])

    def header(self) -> str:
        """Return the value of the Authorization header."""
        audience = quote(self.audience, safe=_SAFE)
        return f'{SCHEME} for="{audience}", time={self.time}, signature={self.signature}'


class TicketVerdict(Enum):
    """The judgement on a ticket."""

    GOOD = auto()
    STRANGER = auto()
    """There is no ticket, or it has another secret's signature or is for another request."""
    MISDIRECTED = auto()
    """A process of this cache made it for another address."""
    UNTIMELY = auto()
    """Only its time is wrong."""


class TicketVerifier:
    """Judges tickets.

    :param secret: the secret of all processes of the cache; if it is empty, no ticket is valid.
    :param audiences: the addresses at which others reach this process.
    """

    def __init__(self, secret: str, audiences: Collection[str]) -> None:
        self._secret = secret
        self._audiences = frozenset(audiences)

    def look(self, header: str, request: Request, now: float) -> TicketVerdict:
        """Judge the Authorization header of a request.

        :param now: the present time, in seconds since 1970.
        """
        try:
            ticket = Ticket.parse(header)
        except Malformed:
            return TicketVerdict.STRANGER
        right = _request_signature(self._secret, ticket.audience, ticket.time, request)
        if not self._secret or not hmac.compare_digest(ticket.signature, right):
            return TicketVerdict.STRANGER
        if ticket.audience not in self._audiences:
            return TicketVerdict.MISDIRECTED
        if abs(now - ticket.time) > GOOD_FOR_S:
            return TicketVerdict.UNTIMELY
        return TicketVerdict.GOOD

    def clock(self, header: str, now: float) -> str:
        """Return the value of X-Ncps-Clock for a ticket with a wrong time."""
        time = int(now)
        signature = _clock_signature(self._secret, time, Ticket.parse(header))
        return f"time={time}, signature={signature}"


def stated_time(secret: str, ticket: Ticket, header: str) -> int | None:
    """Return the time in X-Ncps-Clock of an answer; None if no process of this cache wrote it.

    :param ticket: the ticket of the request.
    :return: seconds since 1970, by the clock of the process that answered.
    """
    match = _CLOCK.fullmatch(header)
    if match is None:
        return None
    time = int(match[1])
    if not hmac.compare_digest(match[2], _clock_signature(secret, time, ticket)):
        return None
    return time


def _request_signature(secret: str, audience: str, time: int, request: Request) -> str:
    parts = (request.method, request.path, request.offset, request.worker, audience, str(time))
    return _signature(secret, "ncps request 1", *parts)


def _clock_signature(secret: str, time: int, ticket: Ticket) -> str:
    return _signature(secret, "ncps clock 1", str(time), ticket.signature)


def _signature(secret: str, *parts: str) -> str:
    """Return the HMAC-SHA256 of all parts, each after its length, so that no two lists agree."""
    encoded = [part.encode("utf-8", "surrogateescape") for part in parts]
    message = b"".join(b"%d:%b," % (len(part), part) for part in encoded)
    return hmac.new(secret.encode(), message, "sha256").hexdigest()
