"""Tickets: processes of one cache know each other by them, without showing their secret.

    Authorization: NCPS-HMAC-SHA256 for="<audience>", time=<seconds>, signature=<hex>
    X-Ncps-Clock:  time=<seconds>, signature=<hex>

A ticket is for one request, made at one address at one time. The address is its audience: that of
the process that is asked, as that process advertises it. So a stranger that receives a ticket
cannot use it elsewhere: the stranger is its only audience. A listener on the network can repeat a
request that it hears, at the same address, for `GOOD_FOR_S`.

Clocks may be apart. A ticket that is right but for its time is answered by the time there, signed
for this ticket, and the client makes another one by that clock. Only a process that has the secret
can tell a client the time, so no stranger gets tickets for other times.
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
"""Seconds that the time of a ticket may be from that of the process that is asked, either way."""

_TICKET: Final = re.compile(
    rf'{SCHEME} for="([!#-\[\]-~]{{1,4096}})", time=([0-9]{{1,12}}), signature=([0-9a-f]{{64}})'
)
_CLOCK: Final = re.compile(r"time=([0-9]{1,12}), signature=([0-9a-f]{64})")
_SAFE: Final = "/:[]@"


@frozen(kw_only=True)
class Request:
    """The request that a ticket is good for.

    :param path: as the process that is asked sees it.
    :param offset: first byte wanted, as it is written in the request.
    :param worker: address of the worker that is meant, empty for any.
    """

    method: str
    path: str
    offset: str = "0"
    worker: str = ""


@frozen(kw_only=True)
class Ticket:
    """A signed proof that a process of this cache makes a request.

    :param audience: address that the request is sent to.
    :param time: seconds since 1970.
    """

    audience: str
    time: int
    signature: str

    @classmethod
    def make(cls, secret: str, audience: str, time: float, request: Request) -> Self:
        """Sign a request."""
        signature = _request_signature(secret, audience, int(time), request)
        return cls(audience=audience, time=int(time), signature=signature)

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read the value of an Authorization header. Raises Malformed if it is no ticket."""
        match = _TICKET.fullmatch(header)
        if match is None:
            raise Malformed("not a ticket")
        return cls(audience=unquote(match[1]), time=int(match[2]), signature=match[3])

    def header(self) -> str:
        """Write the value of an Authorization header."""
        audience = quote(self.audience, safe=_SAFE)
        return f'{SCHEME} for="{audience}", time={self.time}, signature={self.signature}'


class TicketVerdict(Enum):
    """The judgement on a ticket."""

    GOOD = auto()
    STRANGER = auto()
    """There is no ticket, or it was signed with another secret or for another request."""
    MISDIRECTED = auto()
    """It is from a process of this cache, for another address."""
    UNTIMELY = auto()
    """It is good but for its time."""


class TicketVerifier:
    """Looks at tickets.

    :param secret: shared by all processes of the cache; with an empty one no ticket is good.
    :param audiences: addresses at which others reach this process.
    """

    def __init__(self, secret: str, audiences: Collection[str]) -> None:
        self._secret = secret
        self._audiences = frozenset(audiences)

    def look(self, header: str, request: Request, now: float) -> TicketVerdict:
        """Judge the Authorization header of a request.

        :param now: seconds since 1970.
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
        """Write the value of X-Ncps-Clock for an untimely ticket."""
        time = int(now)
        signature = _clock_signature(self._secret, time, Ticket.parse(header))
        return f"time={time}, signature={signature}"


def told_time(secret: str, ticket: Ticket, header: str) -> int | None:
    """Read X-Ncps-Clock in the answer to a ticket; None if no process of this cache wrote it.

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
    """HMAC-SHA256 over parts, each after its length: no two lists of them look alike."""
    encoded = [part.encode("utf-8", "surrogateescape") for part in parts]
    message = b"".join(b"%d:%b," % (len(part), part) for part in encoded)
    return hmac.new(secret.encode(), message, "sha256").hexdigest()
