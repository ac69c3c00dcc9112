"""The look-up of host names: its threads, and a resolver for each upstream.

One more resolver, which the reactor uses, is for all other hosts: peers and Redis.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ncps.aio.resolver import MAX_OTHERS, MAX_PER_NAME, Resolver
from ncps.aio.threads import Workers
from ncps.settings.schema.tree import Settings
from ncps.settings.schema.upstream import UpstreamSetting

PATIENCE_S = 3.0
"""Seconds for the look-up of a host that is not an upstream."""


class HostNames:
    """The resolvers of a process; `Runtime` starts and stops them.

    :ivar threads: the largest number of threads for look-ups.
    """

    def __init__(self, reactor: Any, settings: Settings) -> None:
        upstreams = settings.cache.upstream.upstreams
        own = [*map(_hosts, upstreams), {address.host for address in settings.cache.redis.addrs}]
        size = sum(MAX_OTHERS + MAX_PER_NAME * (1 + len(hosts)) for hosts in own)
        self._reactor = reactor
        self.threads = size
        self._workers = Workers(reactor, "names", size)
        self._usual = Resolver(reactor, self._workers, own=own[-1], patience_s=PATIENCE_S)
        self._replaced: Any = None

    def start(self) -> None:
        """Begin to look up names."""
        self._workers.start()
        self._replaced = self._reactor.installNameResolver(self._usual)

    def of_upstream(self, setting: UpstreamSetting) -> Resolver:
        """Make the resolver of one upstream."""
        return Resolver(
            self._reactor,
            self._workers,
            own=_hosts(setting),
            patience_s=setting.dialer_timeout_s,
        )

    async def stop(self) -> None:
        """Give the reactor its former resolver back; do not wait for look-ups that hang."""
        if self._replaced is not None:
            self._reactor.installNameResolver(self._replaced)
            self._replaced = None
        await self._workers.stop(0.0)


def _hosts(setting: UpstreamSetting) -> set[str]:
    """Return the hosts in the settings of an upstream: its own, and those of its proxies."""
    proxies = (setting.proxies.http, setting.proxies.https)
    own = urlsplit(setting.url).hostname or ""
    return {own, *(proxy.host for proxy in proxies if proxy is not None)}
