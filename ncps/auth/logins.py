"""LoginLimits: limits the wrong credentials from one address.

An address that sent too many must wait: ncps refuses further credentials from there without
checking them, so that attempts to guess use neither the database nor the CPU. Right credentials
that are in memory are still accepted. They are no guesses, and one address may have many clients,
such as the runners of a CI system. So nobody can lock out a working client. A new client at the
same address waits until the time is over.

The same wrong credentials count only once. A client with an expired token asks for hundreds of
paths, and gets the reason each time.
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
"""Addresses that are watched, at most; beyond that, ncps forgets those that failed first."""

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

    :ivar tags: 32 bits of the hash of each credential, which need little memory and reveal nothing.
    """

    until: float
    tags: array[int] = Factory(lambda: array("I"))

    @property
    def count(self) -> int:
        return len(self.tags)


class LoginLimits:
    """Counts wrong credentials; see `ncps.auth.guard.FailedLogins`.

    :param most: failures within `window_s` seconds after which an address must wait until the
        window ends; 0 for no limit.
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
        """Use other limits from now on; a window that has begun keeps its end."""
        self._most, self._window_s = most, window_s

    @property
    def watched(self) -> int:
        """Number of addresses that are watched."""
        return len(self._failures)

    def check(self, client: str) -> None:
        """Raise TooManyFailures if this address must wait."""
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
        """Note wrong credentials from an address; log the first ones and the last that count."""
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
                " refused unchecked",
                count=found.count,
                client=client,
                seconds=round(found.until - now),
            )
