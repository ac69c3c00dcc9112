"""The upstreams, their HTTP clients, and what their health lives on."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.aio.threads import Threads
from ncps.ask.choose import Upstreams
from ncps.ask.health import Health
from ncps.ask.late import Late
from ncps.ask.probes import Probes
from ncps.assembly import limits
from ncps.assembly.names import HostNames
from ncps.errors import Busy, Corrupt, Malformed, NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from ncps.ports import Upstream
from ncps.settings.proxies import ProxiesSetting, ProxyURL
from ncps.settings.schema.tree import Settings
from ncps.settings.schema.upstream import UpstreamSetting
from ncps.upstream.agent import Client, Credentials, Timeouts
from ncps.upstream.netrc import Netrc
from ncps.upstream.netrc import read as read_netrc
from ncps.upstream.proxies import Bypass, Proxies, Proxy
from ncps.upstream.remote import AnswerLimits, Observers, RemoteAddress, RemoteCache

_log = Logger()


@frozen(kw_only=True)
class Upstreaming:
    """The upstreams and what their health lives on."""

    upstreams: Upstreams
    clients: tuple[Client, ...]
    probes: Probes


def metrics(settings: Settings) -> Metrics:
    """Make the metrics, with the series of the configured upstreams."""
    return Metrics([_name(setting.url) for setting in settings.cache.upstream.upstreams])


def _name(url: str) -> str:
    """Name of an upstream in logs and metrics: its URL without the scheme."""
    return url.partition("://")[2]


def upstreaming(
    reactor: Any,
    settings: Settings,
    counters: Metrics,
    tasks: Tasks,
    workers: Threads,
    via: str,
    names: HostNames,
) -> Upstreaming:
    """Make the upstreams and their HTTP clients.

    :param workers: read what is long.
    :param via: our name in Via headers.
    :param names: looks up their hosts.
    """
    netrc = _netrc(settings)
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
                nar_s=setting.nar_timeout_s,
                idle_s=setting.idle_timeout_s,
            ),
            credentials=_credentials(setting, netrc),
            bounds=settings.cache.upstream,
            reached=reached,
            via=via,
            may_lead_inside=settings.cache.upstream.allow_internal_addresses,
            resolver=names.of_upstream(setting),
            proxies=proxies_of(setting.proxies),
        )
        _tell_proxy(setting)
        observers = Observers(
            fetched=counters.bytes_fetched(_name(setting.url)).inc,
            narinfo_seconds=counters.narinfo_fetch_seconds.observe,
            nar_seconds=counters.nar_fetch_seconds.observe,
        )
        clients.append(client)
        caches.append(
            RemoteCache(
                client,
                RemoteAddress(
                    name=_name(setting.url), base_url=setting.url, priority=setting.priority
                ),
                clock=reactor,
                workers=workers,
                observers=observers,
                limits=AnswerLimits(
                    narinfo_size=settings.cache.narinfo_max_size_bytes,
                    max_ratio=settings.cache.max_decompression_ratio,
                ),
            )
        )
    upstreams = Upstreams(
        reactor, tasks, caches, partial(_count_failure, counters), settings.cache.upstream
    )
    counters.upstream_healthy.set_function(
        lambda: sum(candidate.health.is_healthy for candidate in upstreams.candidates)
    )
    for candidate in upstreams.candidates:
        counters.upstream_left_out(candidate.upstream.name).set_function(
            partial(_is_left_out, candidate.health)
        )
    return Upstreaming(
        upstreams=upstreams, clients=tuple(clients), probes=Probes(reactor, tasks, upstreams)
    )


def _is_left_out(health: Health) -> bool:
    return not health.has_say


def _count_failure(counters: Metrics, upstream: Upstream, error: NcpsError) -> None:
    kind = _kind_of_failure(error)
    if kind:
        counters.upstream_errors(upstream.name, kind).inc()


def _kind_of_failure(error: NcpsError) -> str:
    """Value of the label `kind`; empty for what is no failure of its own."""
    is_ours = isinstance(error, Busy) and not isinstance(error, Late)
    if is_ours or not isinstance(error, Unavailable | Corrupt):
        return ""
    return error.kind


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


def proxies_of(setting: ProxiesSetting) -> Proxies:
    """Make what chooses the proxies of an upstream."""
    return Proxies(
        http=_proxy(setting.http), https=_proxy(setting.https), bypass=Bypass(setting.no_proxy)
    )


def _proxy(setting: ProxyURL | None) -> Proxy | None:
    if setting is None:
        return None
    login = None
    if setting.user is not None:
        login = Credentials(user=setting.user, password=setting.password or "")
    return Proxy(
        host=setting.host,
        port=setting.port,
        is_secured=setting.scheme == "https",
        authorization=b"" if login is None else login.header(),
    )


def _tell_proxy(setting: UpstreamSetting) -> None:
    parts = urlsplit(setting.url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    proxy = proxies_of(setting.proxies).choose(parts.scheme, parts.hostname or "", port)
    if proxy is not None:
        _log.info(
            "upstream {upstream} is asked through the proxy {proxy} ({origin})",
            upstream=_name(setting.url),
            proxy=proxy.name,
            origin=dict(setting.proxies.origins)[parts.scheme],
        )
