"""Assembly: the parts of the program put together from settings, in the order of their needs.

Everything here is construction: nothing waits, listens or fetches. `service` starts and stops
what is made here.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

from attrs import frozen
from twisted.logger import Logger

from ncps import limits
from ncps.cache.adopt import Adoption
from ncps.cache.choose import Upstreams
from ncps.cache.inspect import Inspection
from ncps.cache.memory import NarInfoMemory
from ncps.cache.narinfos import NarInfos
from ncps.cache.nars import Nars
from ncps.cache.negatives import Negatives
from ncps.cache.probes import Probes
from ncps.cache.pullthrough import PullThrough
from ncps.cache.uses import Uses
from ncps.cache.vet import Vetting
from ncps.database.catalog import SqlCatalog
from ncps.database.dialects import SQLite
from ncps.database.pool import Database
from ncps.errors import Busy, Corrupt, Malformed, NcpsError, Refused, StorageFull, Unavailable
from ncps.locks.local import LocalLeases
from ncps.metrics import Metrics
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.keys import PublicKey, SecretKey
from ncps.ports import Upstream
from ncps.settings.model import Settings, UpstreamSetting
from ncps.spool import Digest, Spool
from ncps.storage.local import LocalConfigStore, LocalNarInfoStore, LocalNarStore
from ncps.storage.temps import Temps
from ncps.storage.tree import Tree
from ncps.tasks import Tasks
from ncps.upstream.agent import Client, Credentials, Timeouts
from ncps.upstream.netrc import Netrc
from ncps.upstream.netrc import read as read_netrc
from ncps.upstream.remote import Observers, RemoteCache
from ncps.web import info
from ncps.web.metrics import Scrape
from ncps.web.nar import NarPages
from ncps.web.narinfo import NarInfoPages
from ncps.web.routes import Page, Routes
from ncps.web.site import NcpsSite
from ncps.workers import Workers

THREADS = 4
VIA = f"ncps-{uuid4().hex[:12]}"
"""Name of this process in Via headers."""
_log = Logger()


@frozen(kw_only=True)
class Adapters:
    """The adapters of one machine; the service opens and closes what needs it."""

    workers: Workers
    tree: Tree
    spools: Temps
    nar_store: LocalNarStore
    narinfo_store: LocalNarInfoStore
    config_store: LocalConfigStore
    database: Database
    catalog: SqlCatalog


@frozen(kw_only=True)
class Upstreaming:
    """The upstreams and what their health lives on."""

    upstreams: Upstreams
    clients: tuple[Client, ...]
    probes: Probes


@frozen(kw_only=True)
class Core:
    """The cache core."""

    cache: PullThrough
    nars: Nars
    uses: Uses
    inspection: Inspection


def adapters(reactor: Any, settings: Settings) -> Adapters:
    """Make the adapters; nothing is opened yet."""
    workers = Workers(reactor, "disk", THREADS)
    tree = Tree(settings.cache.storage.local)
    database = Database(reactor, SQLite(settings.cache.database_url.path))
    temp_path = settings.cache.temp_path
    return Adapters(
        workers=workers,
        tree=tree,
        spools=tree.temps if temp_path is None else Temps(temp_path),
        nar_store=LocalNarStore(tree=tree, workers=workers),
        narinfo_store=LocalNarInfoStore(tree=tree, workers=workers),
        config_store=LocalConfigStore(tree=tree, workers=workers),
        database=database,
        catalog=SqlCatalog(database),
    )


def metrics(settings: Settings) -> Metrics:
    """Make the metrics, with the series of the configured upstreams."""
    return Metrics([_name(setting.url) for setting in settings.cache.upstream.upstreams])


def _name(url: str) -> str:
    """Name of an upstream in logs and metrics: its URL without the scheme."""
    return url.partition("://")[2]


def vetting(settings: Settings, key: SecretKey) -> Vetting:
    """Make the judge of narinfos."""
    trusted = tuple(PublicKey.parse(text) for text in settings.cache.upstream.public_keys)
    if not trusted:
        _log.warn(
            "no public key is configured: narinfos are passed on unverified and are not signed"
        )
    own = key if settings.cache.sign_narinfo else None
    return Vetting(trusted=trusted, own=own, name=key.public.name)


def upstreaming(reactor: Any, settings: Settings, counters: Metrics, tasks: Tasks) -> Upstreaming:
    """Make the upstreams and their HTTP clients."""
    netrc = _netrc(settings)
    bounds = limits.of_upstream(settings)
    reached = limits.reached(counters)
    clients: list[Client] = []
    caches: list[Upstream] = []
    for setting in settings.cache.upstream.upstreams:
        client = Client(
            reactor,
            base_url=setting.url,
            timeouts=Timeouts(
                connect_s=setting.dialer_timeout_s,
                first_byte_s=setting.response_header_timeout_s,
                idle_s=setting.idle_timeout_s,
            ),
            credentials=_credentials(setting, netrc),
            bounds=bounds,
            reached=reached,
            via=VIA,
        )
        observers = Observers(
            fetched=counters.bytes_fetched(_name(setting.url)).inc,
            narinfo_seconds=counters.narinfo_fetch_seconds.observe,
            nar_seconds=counters.nar_fetch_seconds.observe,
        )
        clients.append(client)
        caches.append(
            RemoteCache(
                client,
                name=_name(setting.url),
                base_url=setting.url,
                priority=setting.priority,
                clock=reactor,
                observers=observers,
            )
        )
    upstreams = Upstreams(reactor, tasks, caches, partial(_count_failure, counters))
    counters.upstream_healthy.set_function(
        lambda: sum(candidate.health.is_healthy for candidate in upstreams.candidates)
    )
    return Upstreaming(
        upstreams=upstreams, clients=tuple(clients), probes=Probes(reactor, tasks, upstreams)
    )


def _count_failure(counters: Metrics, upstream: Upstream, error: NcpsError) -> None:
    kind = _kind_of_failure(error)
    if kind:
        counters.upstream_errors(upstream.name, kind).inc()


def _kind_of_failure(error: NcpsError) -> str:
    """Value of the label `kind`; empty for what is no failure of its own."""
    text = str(error)
    if isinstance(error, Corrupt):
        return "malformed" if text.startswith("not ") else "corrupt"
    if isinstance(error, Busy) or not isinstance(error, Unavailable):
        return ""
    if error.timed_out:
        return "timeout"
    if text.startswith("status"):
        return "status"
    return "broken" if "body" in text else "connect"


def _netrc(settings: Settings) -> Netrc:
    try:
        return read_netrc(settings.cache.netrc_file)
    except (Malformed, Unavailable) as error:
        _log.warn("the netrc file is not used: {reason}", reason=str(error))
        return Netrc()


def _credentials(setting: UpstreamSetting, netrc: Netrc) -> Credentials | None:
    if setting.user is not None:
        return Credentials(user=setting.user, password=setting.password or "")
    found = netrc.credentials(Client.host_of(setting.url))
    return Credentials(user=found[0], password=found[1]) if found is not None else None


def adoption(reactor: Any, parts: Adapters, tasks: Tasks) -> Adoption:
    """Make what takes over bytes without a row."""
    return Adoption(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.nar_store,
        workers=parts.workers,
    )


def core(
    reactor: Any,
    settings: Settings,
    parts: Adapters,
    whom: Upstreaming,
    counters: Metrics,
    tasks: Tasks,
    key: SecretKey,
) -> Core:
    """Put the cache together."""

    def held(what: str, seconds: float) -> None:
        if what == "held":
            counters.lock_hold_seconds("exclusive", "local").observe(seconds)
        else:
            counters.lock_acquisitions("exclusive", "local", what).inc()

    leases = LocalLeases(reactor, held)
    negatives = Negatives(
        reactor,
        ttl_s=settings.cache.negative.ttl_s,
        max_entries=settings.cache.negative.max_entries,
    )
    uses = Uses(reactor, parts.catalog)
    narinfos = NarInfos(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.narinfo_store,
        leases=leases,
        upstreams=whom.upstreams,
        vetting=vetting(settings, key),
        memory=NarInfoMemory(settings.cache.narinfo_memory_size_bytes),
        negatives=negatives,
        uses=uses,
        disagreed=counters.disagreements.inc,
        is_arriving=lambda key: nars.is_arriving(key),  # noqa: PLW0108 - made below
    )
    admission = limits.admission(
        reactor, settings, counters, (parts.spools.directory, parts.tree.root)
    )
    nars = Nars(
        clock=reactor,
        tasks=tasks,
        catalog=parts.catalog,
        store=parts.nar_store,
        leases=leases,
        upstreams=whom.upstreams,
        narinfos=narinfos,
        adoption=adoption(reactor, parts, tasks),
        negatives=negatives,
        uses=uses,
        workers=parts.workers,
        new_spool=partial(_new_spool, parts),
        admission=admission,
        new_seal=limits.new_seal(settings, counters),
        patience_s=settings.cache.download.resume_timeout_s,
        ended=lambda outcome: counters.downloads(outcome).inc(),
    )
    counters.downloads_in_flight.set_function(lambda: nars.arriving)
    inspection = Inspection(
        clock=reactor,
        catalog=parts.catalog,
        store=parts.nar_store,
        narinfos=narinfos,
        workers=parts.workers,
        bytes_per_second=settings.cache.verify_rate_bytes,
        inspected=lambda result: counters.inspections(result).inc(),
    )
    cache = PullThrough(
        public_key=key.public,
        narinfos=narinfos,
        nars=nars,
        catalog=parts.catalog,
        config=parts.config_store,
        upstreams=whom.upstreams,
    )
    return Core(cache=cache, nars=nars, uses=uses, inspection=inspection)


def _new_spool(parts: Adapters, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
    """Make a spool; without room for its file it is made without one.

    :param why: a reason not to have a file.
    """
    file = None
    try:
        file = None if why else parts.spools.create("spool")
    except (StorageFull, Unavailable) as error:
        why = str(error)
    return Spool(file=file, workers=parts.workers, digests=digests, total=total, keep_error=why)


def site(reactor: Any, settings: Settings, cache: PullThrough, counters: Metrics) -> NcpsSite:
    """Make the HTTP floor."""
    advertised = settings.cache.nix_cache_info
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
        b"/readyz": info.Readiness(cache),
    }
    if settings.prometheus.enabled:
        pages[b"/metrics"] = Scrape(counters.registry)
    root = Routes(
        pages,
        narinfos=NarInfoPages(cache, counters),
        nars=NarPages(cache, counters),
        via=VIA.encode(),
    )
    return NcpsSite(root, clock=reactor, metrics=counters, limits=limits.of_clients(settings))


def imported_key(settings: Settings) -> str | None:
    """Text of the key file, if one is named. Refused."""
    path = settings.cache.secret_key_path
    if path is None:
        return None
    try:
        text = path.read_text()
        SecretKey.parse(text)
    except OSError as error:
        raise Refused(f"cache-secret-key-path: {path} cannot be read: {error.strerror}") from error
    except (Malformed, UnicodeDecodeError):
        raise Refused(
            f"cache-secret-key-path: {path} is not a secret key of Nix (name:base64, 64 bytes)"
        ) from None
    return text
