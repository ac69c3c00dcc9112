"""LoginLimits: limits the wrong credentials from one address.

An address that sent too many has to wait: ncps refuses further credentials from there without
looking at them, so that guesses cost neither the database nor the processor. Credentials that were
found right before are in memory, and pass all the same. They are no guesses, and one address may
have many clients, such as the runners of a CI system. So nobody can lock out a client that is at
work. A new client at the same address waits until the time is over.

The same credentials once more are no further guess: a client with a token that has expired asks for
hundreds of paths, and shall be told that each time.
"""

from __future__ import annotations

from array import array
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from attrs import Factory, define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.recent import BoundedMap
from ncps.auth.guard import TooManyFailures
from ncps.observe.metrics import Metrics

MAX_ADDRESSES: Final = 10_000
"""Addresses that are watched at once; beyond, ncps forgets those that failed first."""

LIMIT: Final = "auth-max-failed-logins"


def network_of(client: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or an IPv6 /64 (RFC 6177).

    A text that is no address stands for itself.
    """
    if ":" not in client:
        return client
    return ip_address(client).packed[:8].hex()


@define
class _Failures:
    """Wrong credentials of one address in one window of time.

    :ivar tags: 32 bits of the hash of each, which take little room and tell no secret.
    """

    until: float
    tags: array[int] = Factory(lambda: array("I"))

    @property
    def count(self) -> int:
        return len(self.tags)


class LoginLimits:
    """See `ncps.auth.guard.FailedLogins`.

    :param most: failures of one address within `window_s` after which it has to wait until the
        window ends; 0 for any number.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, metrics: Metrics, *, most: int, window_s: float
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._most = most
        self._window_s = window_s
        self._failures: BoundedMap[str, _Failures] = BoundedMap(MAX_ADDRESSES)

    def take(self, *, most: int, window_s: float) -> None:
        """Go on with other limits; a window that has begun ends when it would have."""
        self._most, self._window_s = most, window_s

    @property
    def watched(self) -> int:
        """The number of addresses that are watched."""
        return len(self._failures)

    def check(self, client: str) -> None:
        """Raises TooManyFailures if this address has to wait."""
        found = self._failures.get(network_of(client))
        if found is None or not self._most or found.count < self._most:
            return
        left_s = found.until - self._clock.seconds()
        if left_s > 0:
            self._metrics.limit_reached(LIMIT).inc()
            raise TooManyFailures(
                f"too many wrong credentials from this address; try again in {left_s:.0f} s",
                retry_after=left_s,
            )

    def failed(self, client: str, secret: str) -> None:
        """Note wrong credentials from an address, and log the first and the last that counts."""
        network, now = network_of(client), self._clock.seconds()
        found = self._failures.get(network)
        if found is None or now >= found.until:
            found = _Failures(now + self._window_s)
            self._failures.put(network, found)
            self._log.warn("wrong credentials from {client}", client=client)
        digest = sha256(secret.encode("utf-8", "surrogatepass")).digest()
        tag = int.from_bytes(digest[:4])
        if tag in found.tags or found.count >= self._most:
            return
        found.tags.append(tag)
        if found.count == self._most:
            self._log.warn(
                "{count} wrong credentials from {client}: for {seconds} s others from there are"
                " refused unseen",
                count=found.count,
                client=client,
                seconds=round(found.until - now),
            )
