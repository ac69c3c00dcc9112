"""The upstreams, their HTTP clients, and the probes of their health."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import within
from ncps.ask.choose import Upstreams
from ncps.ask.health import Health
from ncps.ask.probes import Probes
from ncps.assembly.names import HostNames
from ncps.assembly.parts import Foundation
from ncps.assembly.reload import PART_S, TROUBLE
from ncps.errors import Malformed, Unavailable
from ncps.observe.metrics import Metrics
from ncps.observe.tracing.calls import CalledUpstream
from ncps.ports import Upstream
from ncps.settings.kinds.proxies import ProxiesSetting, ProxyURL
from ncps.settings.rules.telemetry import gets_traces
from ncps.settings.schema.tree import Settings
from ncps.settings.schema.upstream import UpstreamSetting
from ncps.upstream.agent import Client
from ncps.upstream.destination import BasicCredentials, Destination, Timeouts
from ncps.upstream.netrc import Netrc
from ncps.upstream.netrc import read as read_netrc
from ncps.upstream.proxies import Bypass, Proxies, Proxy
from ncps.upstream.remote import AnswerLimits, RemoteAddress, RemoteCache

_log = Logger()


@frozen
class _Made:
    """An upstream and its client; a reload keeps both if their recipe is the same."""

    recipe: tuple[object, ...]
    client: Client
    cache: Upstream


class Upstreaming:
    """The upstreams, their HTTP clients, and the probes of their health.

    :param names: looks up the hosts of upstreams.
    """

    def __init__(self, base: Foundation, tasks: Tasks, names: HostNames) -> None:
        self._base = base
        self._names = names
        settings = base.settings
        try:
            self._netrc = read_netrc(settings.cache.netrc_file, is_expected=_is_expected(settings))
        except (Malformed, Unavailable) as error:
            _log.warn(
                "netrc-file: {reason}; ncps asks upstreams without user name and password until it"
                " can read the file (set by: {origin})",
                reason=str(error),
                origin=_origin(settings),
            )
            self._netrc = Netrc()
        self._made: dict[str, _Made] = {}
        self._make(settings)
        self.upstreams = Upstreams(
            base.reactor, tasks, self._caches(), base.metrics, settings.cache.upstream
        )
        self.probes = Probes(base.reactor, tasks, self.upstreams)
        _show(base.metrics, self.upstreams)

    @property
    def clients(self) -> tuple[Client, ...]:
        """The clients of all upstreams."""
        return tuple(made.client for made in self._made.values())

    def _caches(self) -> list[Upstream]:
        return [made.cache for made in self._made.values()]

    def _make(self, settings: Settings) -> list[str]:
        """Make new and changed upstreams; return their names."""
        before, self._made = self._made, {}
        for setting in settings.cache.upstream.upstreams:
            credentials = _credentials(setting, self._netrc)
            recipe = _recipe(settings, setting, credentials)
            made = before.get(setting.url)
            if made is None or made.recipe != recipe:
                client = _client(self._base, settings, setting, self._names, credentials)
                _tell_proxy(setting)
                cache = _cache(self._base, settings, setting, client)
                is_on = self._base.tracer.is_on
                made = _Made(recipe, client, CalledUpstream(cache) if is_on else cache)
            self._made[setting.url] = made
        for url, former in before.items():
            if self._made.get(url) is not former:
                former.client.discard()  # running answers go on
        return [made.cache.name for url, made in self._made.items() if before.get(url) is not made]

    async def take(self, settings: Settings) -> list[str]:
        """Ask the upstreams of other settings from now on, and read the netrc file again.

        Returns lines about changes that the settings do not show.
        """
        lines = await self._read_netrc(settings)
        for name in self._make(settings):
            lines.append(f"upstream {name} is asked with new settings or credentials")
        self.upstreams.pace = settings.cache.upstream
        self.upstreams.replace(self._caches())
        self.probes.start()
        _show(self._base.metrics, self.upstreams)
        return lines

    async def _read_netrc(self, settings: Settings) -> list[str]:
        try:
            # Do not warn again of a file that was missing at the start.
            is_expected = _is_expected(settings) and self._netrc != Netrc()
            path = settings.cache.netrc_file
            read = partial(read_netrc, is_expected=is_expected)
            late = f"{path} cannot be read within {PART_S:g} s"
            reading = self._base.parts.workers.run(read, path)
            self._netrc = await within(self._base.reactor, PART_S, reading, late)
        except (Malformed, Unavailable) as error:
            return [f"{TROUBLE}the netrc file is wrong, ncps keeps its former contents: {error}"]
        return []


def _recipe(
    settings: Settings, setting: UpstreamSetting, credentials: BasicCredentials | None
) -> tuple[object, ...]:
    """Return the values from which the client of an upstream is made."""
    bounds = evolve(settings.cache.upstream, upstreams=(), public_keys=())
    return setting, credentials, bounds, settings.cache.narinfo_max_size_bytes


def metrics(settings: Settings) -> Metrics:
    """Make the metrics, with the series of the configured upstreams."""
    return Metrics([_name(setting.url) for setting in settings.cache.upstream.upstreams])


def _name(url: str) -> str:
    """Return the name of an upstream in logs and metrics: its URL without the scheme."""
    return url.partition("://")[2]


def _client(
    base: Foundation,
    settings: Settings,
    setting: UpstreamSetting,
    names: HostNames,
    credentials: BasicCredentials | None,
) -> Client:
    """Make the HTTP client of one upstream."""
    return Client(
        base.reactor,
        _destination(setting, credentials, names, base.settings.opentelemetry.propagate_to),
        bounds=settings.cache.upstream,
        metrics=base.metrics,
        via=base.role.via,
    )


def _cache(
    base: Foundation, settings: Settings, setting: UpstreamSetting, client: Client
) -> RemoteCache:
    """Make the upstream that a client asks."""
    return RemoteCache(
        client,
        RemoteAddress(name=_name(setting.url), base_url=setting.url, priority=setting.priority),
        clock=base.reactor,
        workers=base.parts.workers,
        metrics=base.metrics,
        limits=AnswerLimits(
            narinfo_size=settings.cache.narinfo_max_size_bytes,
            max_ratio=settings.cache.max_decompression_ratio,
        ),
    )


def _show(metrics: Metrics, upstreams: Upstreams) -> None:
    """Show the number and the health of upstreams in the metrics."""
    metrics.upstream_count.set(len(upstreams.candidates))
    metrics.upstream_healthy.set_function(
        lambda: sum(candidate.health.is_healthy for candidate in upstreams.candidates)
    )
    for candidate in upstreams.candidates:
        metrics.upstream_left_out(candidate.upstream.name).set_function(
            partial(_is_left_out, candidate.health)
        )


def _destination(
    setting: UpstreamSetting,
    credentials: BasicCredentials | None,
    names: HostNames,
    traced_upstreams: tuple[str, ...],
) -> Destination:
    return Destination(
        base_url=setting.url,
        timeouts=Timeouts(
            connect_s=setting.dialer_timeout_s,
            first_byte_s=setting.response_header_timeout_s,
            nar_s=setting.nar_timeout_s,
            idle_s=setting.idle_timeout_s,
        ),
        credentials=credentials,
        resolver=names.of_upstream(setting),
        proxies=proxies_of(setting.proxies),
        gets_traces=gets_traces(setting.url, traced_upstreams),
    )


def _is_left_out(health: Health) -> bool:
    return not health.has_say


def _origin(settings: Settings) -> str:
    """Return the source of the setting of the netrc file."""
    return settings.origins.get("cache.netrc-file", "default")


def _is_expected(settings: Settings) -> bool:
    """Whether a setting names the netrc file, so that it should exist."""
    return _origin(settings) != "default"


def _credentials(setting: UpstreamSetting, netrc: Netrc) -> BasicCredentials | None:
    if setting.user is not None:
        return BasicCredentials(user=setting.user, password=setting.password or "")
    found = netrc.credentials(Client.host_of(setting.url))
    return BasicCredentials(user=found[0], password=found[1]) if found is not None else None


def proxies_of(setting: ProxiesSetting) -> Proxies:
    """Make the chooser of the proxies of an upstream."""
    return Proxies(
        http=_proxy(setting.http), https=_proxy(setting.https), bypass=Bypass(setting.no_proxy)
    )


def _proxy(setting: ProxyURL | None) -> Proxy | None:
    if setting is None:
        return None
    login = None
    if setting.user is not None:
        login = BasicCredentials(user=setting.user, password=setting.password or "")
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
