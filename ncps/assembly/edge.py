"""The HTTP layer, joined from its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from twisted.logger import Logger

from ncps.aio.certificate import CertificateFiles
from ncps.aio.clocks import wall_of
from ncps.aio.descriptors import fitting, raise_limit
from ncps.assembly.access import AccessControl
from ncps.assembly.closures import Closures
from ncps.assembly.core import memory_shares
from ncps.assembly.parts import Foundation
from ncps.auth.principal import Scope
from ncps.cache.bulk.answers import Bulk
from ncps.cache.cache import PullThrough
from ncps.cache.extras.answers import Extras
from ncps.cache.write.verbs import Uploads
from ncps.nix.cacheinfo import CacheInfo
from ncps.peering.tickets import TicketVerifier
from ncps.ports import Peers
from ncps.settings.schema.tree import Settings
from ncps.web.api_routes import closures, pins, query, removals
from ncps.web.certificates import Certificates
from ncps.web.fast.hot import HotNarInfos
from ncps.web.fast.hot_nars import HotNars
from ncps.web.grammar import cluster_nars, extras, fixed, narinfos, nars, old_nars, realisations
from ncps.web.pages import info
from ncps.web.pages.bulk import ClosurePages, QueryPage
from ncps.web.pages.closures import PinPages, RemovalPages
from ncps.web.pages.extras import ExtraPages
from ncps.web.pages.hot_nar import HotNarPages
from ncps.web.pages.metrics import Scrape
from ncps.web.pages.nar import NarPages
from ncps.web.pages.narinfo import NarInfoPages
from ncps.web.pages.peers import PeerPages
from ncps.web.pages.realisation import RealisationPages
from ncps.web.pages.upload import UploadPages
from ncps.web.routes import Route, Routes, only_below_upload
from ncps.web.site import NcpsSite

_log = Logger()


def inner_pages(base: Foundation, cache: PullThrough) -> PeerPages:
    """Make the pages on which siblings find arriving NARs."""
    verifier = _verifier(base.settings, base.role.address)
    return PeerPages(cache, verifier, wall_of(base.reactor))


def _verifier(settings: Settings, audience: str) -> TicketVerifier:
    """Make the verifier of requests from the other processes of this cache.

    :param audience: the address at which they reach this one; empty for none.
    """
    return TicketVerifier(settings.cluster.secret, [audience] if audience else [])


def site(
    base: Foundation,
    cache: PullThrough,
    peers: Peers,
    access: AccessControl,
    closures: Closures,
    warnings: Callable[[], list[str]] = list,
    *,
    uploads: Uploads,
    more: Iterable[Route] = (),
) -> NcpsSite:
    """Make the HTTP layer.

    :param access: decides what a client may do.
    :param uploads: accepts uploads.
    :param closures: pins and removals.
    :param warnings: returns warnings for `/readyz`.
    :param more: further routes.
    """
    settings, metrics, role = base.settings, base.metrics, base.role
    hot = HotNarInfos(memory_shares(settings)[1])
    at_root = settings.cache.upload.at_root
    hot_nars = HotNars(settings.cache.nar_memory_size_bytes)
    own_nars = HotNarPages(cache, metrics, hot_nars, takes_uploads=at_root)
    taking, removing = UploadPages(uploads), RemovalPages(closures.removing)
    routes = [
        narinfos(NarInfoPages(cache, metrics, hot), removing, taking, at_root=at_root),
        nars(own_nars, removing, NarPages(uploads, metrics), taking, at_root=at_root),
        old_nars(own_nars),
        cluster_nars(_cluster_pages(base, cache, peers)),
        *realisations(RealisationPages(cache.realisations, metrics)),
        *_about(base, cache, access, warnings),
        *pins(PinPages(closures.pinning)),
        *removals(removing),
        *more,
    ]
    if not at_root:
        routes = [only_below_upload(route) for route in routes]
    root = Routes(routes, guard=access.pages, via=role.via)
    made = NcpsSite(root, clock=base.reactor, metrics=metrics, limits=settings.server, hot=hot)
    made.tracer, made.hot_nars = base.tracer, own_nars.hot
    let_read(made, access)
    return made


def let_read(site: NcpsSite, access: AccessControl) -> None:
    """Let the site send ready answers to the clients that may read."""
    is_open = access.guard.rules.reads_are_open  # then every client may read
    site.read_by(None if is_open else access.pages.reader)


def extra_routes(base: Foundation, verbs: Extras) -> Iterator[Route]:
    """Make the routes of logs, listings and debug information."""
    return extras(ExtraPages(verbs, base.metrics, base.reactor))


def _cluster_pages(base: Foundation, cache: PullThrough, peers: Peers) -> PeerPages:
    """Make the pages on which other replicas find arriving NARs."""
    return PeerPages(
        cache,
        _verifier(base.settings, base.settings.cluster.advertise_url),
        wall_of(base.reactor),
        siblings=base.role.siblings,
        peers=peers,
    )


def _about(
    base: Foundation,
    cache: PullThrough,
    access: AccessControl,
    warnings: Callable[[], list[str]],
) -> Iterator[Route]:
    """Make the routes about the cache itself."""
    advertised = base.settings.cache.nix_cache_info
    info_text = CacheInfo(
        store_dir=advertised.store_dir,
        want_mass_query=advertised.want_mass_query,
        priority=advertised.priority,
    )
    yield fixed("/", info.index(base.settings.cache.hostname, cache), is_upload=True)
    yield fixed("/nix-cache-info", info.cache_info(info_text), is_upload=True)
    yield fixed("/pubkey", info.public_key(cache), is_upload=True)
    yield fixed("/healthz", info.heartbeat(), None)
    yield fixed("/readyz", _readiness(cache, access, warnings), None)
    if base.settings.prometheus.enabled:
        yield scrapes(base, base.settings)


def scrapes(base: Foundation, settings: Settings) -> Route:
    """Make the route of the metrics."""
    scope = None if settings.auth.metrics == "open" else Scope.READ
    return fixed("/metrics", Scrape(base.metrics.registry, base.role.gather), scope)


def _readiness(
    cache: PullThrough, access: AccessControl, warnings: Callable[[], list[str]]
) -> info.ReadinessPage:
    return info.ReadinessPage(
        cache, lambda: [*warnings(), *access.warnings()], lambda: {"access": access.told()}
    )


def bulk_routes(base: Foundation, bulk: Bulk) -> list[Route]:
    """Make the routes of queries about many paths."""
    return [query(QueryPage(bulk, base.parts.workers)), closures(ClosurePages(bulk))]


def certificates(base: Foundation) -> Certificates | None:
    """Make the certificates of new encrypted connections; None if no address speaks TLS."""
    files = certificate_files(base.settings)
    if files is None:
        return None
    return Certificates(
        base.reactor,
        base.parts.workers,
        base.metrics,
        files,
        handshake_s=base.settings.server.tls.handshake_timeout_s,
    )


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """Return the files of the server's certificate; None if it has none."""
    tls = settings.server.tls
    if tls.cert_file is None or tls.key_file is None:
        return None
    return CertificateFiles(cert=tls.cert_file, key=tls.key_file, client_ca=tls.client_ca_file)


def let_fit(settings: Settings, site: NcpsSite) -> None:
    """Accept no more connections than there are descriptors for."""
    descriptors = raise_limit()
    wanted = settings.server.max_connections
    fits = connections_that_fit(settings, descriptors)
    if fits < wanted:
        site.crowd.most = fits
        tell = _log.warn if fits < wanted // 2 else _log.info
        tell(
            "the limit of {descriptors} descriptors allows {fits} connections of clients, not"
            " {wanted} (server-max-connections): further ones wait; raise the limit"
            " (LimitNOFILE= of systemd, ulimit -Hn)",
            descriptors=descriptors,
            fits=fits,
            wanted=wanted,
        )


def connections_that_fit(settings: Settings, descriptors: int) -> int:
    """Return the number of client connections that fit besides all other descriptors.

    :param descriptors: the limit of this process.
    """
    upstream = settings.cache.upstream
    transfers = max(1, len(upstream.upstreams)) * upstream.max_connections
    spools = min(settings.cache.download.max_count, transfers)
    databases = settings.cache.database.pool.max_open_conns
    return fitting(
        descriptors,
        connections=settings.server.max_connections,
        requests=settings.server.max_requests,
        others=transfers + spools + databases,
    )
