"""The HTTP floor, put together."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from ncps.aio.clocks import wall_of
from ncps.aio.descriptors import raise_limit
from ncps.assembly import limits
from ncps.assembly.role import Role
from ncps.cache.cache import PullThrough
from ncps.nix.cacheinfo import CacheInfo
from ncps.observe.metrics import Metrics
from ncps.peering.tickets import TicketVerifier
from ncps.ports import Peers
from ncps.settings.schema.tree import Settings
from ncps.web.clients import TrustedProxies
from ncps.web.fast.hot import HotNarInfos
from ncps.web.pages import info
from ncps.web.pages.metrics import Scrape
from ncps.web.pages.nar import NarPages
from ncps.web.pages.narinfo import NarInfoPages
from ncps.web.pages.peers import PeerPages
from ncps.web.routes import Page, Routes
from ncps.web.site import NcpsSite

_log = Logger()


def inner_pages(reactor: Any, settings: Settings, cache: PullThrough, place: Role) -> PeerPages:
    """Make what answers siblings for NARs on their way."""
    return PeerPages(cache, _verifier(settings, place.address), wall_of(reactor))


def _verifier(settings: Settings, audience: str) -> TicketVerifier:
    """Make what knows requests of the cache's other processes.

    :param audience: where they reach this one; empty if they do not.
    """
    return TicketVerifier(settings.cluster.secret, [audience] if audience else [])


def site(
    reactor: Any,
    settings: Settings,
    cache: PullThrough,
    counters: Metrics,
    place: Role,
    peers: Peers,
) -> NcpsSite:
    """Make the HTTP floor."""
    advertised = settings.cache.nix_cache_info
    hot = HotNarInfos(limits.memory_shares(settings)[1])
    pages: dict[bytes, Page] = {
        b"/": info.index(settings.cache.hostname, cache.public_key),
        b"/nix-cache-info": info.cache_info(
            CacheInfo(
                store_dir=advertised.store_dir,
                want_mass_query=advertised.want_mass_query,
                priority=advertised.priority,
            )
        ),
        b"/pubkey": info.public_key(cache.public_key),
        b"/healthz": info.heartbeat(),
        b"/readyz": info.ReadinessPage(cache),
    }
    if settings.prometheus.enabled:
        pages[b"/metrics"] = Scrape(counters.registry, place.gather)
    root = Routes(
        pages,
        narinfos=NarInfoPages(cache, counters, hot),
        nars=NarPages(cache, counters),
        peers=PeerPages(
            cache,
            _verifier(settings, settings.cluster.advertise_url),
            wall_of(reactor),
            siblings=place.siblings,
            peers=peers,
        ),
        via=place.via,
    )
    return NcpsSite(
        root,
        clock=reactor,
        metrics=counters,
        limits=settings.server,
        hot=hot,
        proxies=TrustedProxies(settings.server.trusted_proxies),
    )


def let_fit(settings: Settings, site: NcpsSite) -> None:
    """Take no more connections than there are descriptors for."""
    descriptors = raise_limit()
    wanted = settings.server.max_connections
    fits = limits.connections_that_fit(settings, descriptors)
    if fits < wanted:
        site.crowd.most = fits
        tell = _log.warn if fits < wanted // 2 else _log.info
        tell(
            "beneath the limit of {descriptors} descriptors {fits} connections of clients fit,"
            " not {wanted} (server-max-connections): more will wait; raise the limit"
            " (LimitNOFILE= of systemd, ulimit -Hn)",
            descriptors=descriptors,
            fits=fits,
            wanted=wanted,
        )
