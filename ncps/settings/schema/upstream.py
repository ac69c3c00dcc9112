"""Settings of the upstreams: the caches that ncps fetches from."""

from __future__ import annotations

from attrs import field, frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.network import UPSTREAM_URL
from ncps.settings.kinds.proxies import PROXY as UPSTREAM_PROXY
from ncps.settings.kinds.proxies import ProxiesSetting, ProxyURL
from ncps.settings.kinds.values import BOOLEAN, PUBLIC_KEY, SIZE, choice, duration, integer, size
from ncps.settings.setting import SettingNames


@frozen(kw_only=True)
class UpstreamSetting:
    """One upstream, with all its values decided.

    :ivar url: base URL without credentials, query and trailing slash.
    :ivar priority: lower is asked first.
    :ivar proxies: the proxies for its own URLs and for those that it leads to.
    :ivar user: from the URL, percent-decoded; None if the URL had no credentials.
    """

    url: str
    priority: int
    dialer_timeout_s: float
    response_header_timeout_s: float
    nar_timeout_s: float
    idle_timeout_s: float
    proxies: ProxiesSetting
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class UpstreamsSettings:
    """The caches to fetch from, and the limits of requests to them.

    :ivar upstreams: with timeouts of their own if given, else the common ones.
    :ivar public_keys: as Nix writes them, each checked for its form.
    :ivar proxy: for all upstreams without a proxy of their own; None to use the environment.
    """

    upstreams: tuple[UpstreamSetting, ...] = setting(
        UPSTREAM_URL,
        ("https://cache.nixos.org",),
        "Binary cache to fetch from, one or several. Parameters in the URL are for that upstream "
        "alone: ?priority=N (0 to 65535; the lowest is asked first; 0 or no number means 40), "
        "&dialer-timeout=, &response-header-timeout=, &nar-timeout=, &idle-timeout=, &proxy=. In "
        "a configuration file an element may also be a table of url and these. Put credentials "
        "into the netrc file rather than into the URL.",
        key="urls",
        flag="cache-upstream-url",
        environment="CACHE_UPSTREAM_URLS",
        aliases=(
            SettingNames(
                flag="upstream-cache", environment="UPSTREAM_CACHES", key="cache.upstream.caches"
            ),
        ),
        bare=(),
        reloads=True,
    )
    public_keys: tuple[str, ...] = setting(
        PUBLIC_KEY,
        (),
        "Public key NAME:BASE64 with which narinfos of upstreams may be signed, one or several. "
        "The well-known key of cache.nixos.org need not be given.",
        note="the key of cache.nixos.org, if that is an upstream",
        flag="cache-upstream-public-key",
        environment="CACHE_UPSTREAM_PUBLIC_KEYS",
        aliases=(SettingNames(flag="upstream-public-key", environment="UPSTREAM_PUBLIC_KEYS"),),
        reloads=True,
    )
    dialer_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "3s",
        "Time to connect to an upstream.",
        aliases=(
            SettingNames(flag="upstream-dialer-timeout", environment="UPSTREAM_DIALER_TIMEOUT"),
        ),
        reloads=True,
    )
    response_header_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "3s",
        "Time that an upstream has to start its answer, unless the answer is a NAR.",
        aliases=(
            SettingNames(
                flag="upstream-response-header-timeout",
                environment="UPSTREAM_RESPONSE_HEADER_TIMEOUT",
            ),
        ),
        reloads=True,
    )
    nar_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "50s",
        "Time that an upstream has to start its answer with a NAR, which some upstreams fetch or "
        "build first. ncps asks another upstream that has the NAR much earlier, and gives up "
        "earlier if the upstream answers no other request meanwhile. Proxies in front of this "
        "cache often wait for 60s, Nix for 300s.",
        reloads=True,
    )
    idle_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "20s",
        "Time for which an upstream may send nothing in the middle of its answer.",
        reloads=True,
    )
    plain_requests: bool = setting(
        BOOLEAN,
        "true",
        "Use a faster HTTP client of our own for simple requests to upstreams. The answers are "
        "the same. Turn it off to find out whether it causes a fault.",
    )
    proxy: ProxyURL | None = setting(
        UPSTREAM_PROXY,
        "",
        "HTTP proxy for requests to upstreams, such as http://proxy.example.org:3128, or "
        "https://... for TLS to the proxy, with credentials before an @; or `none`. https goes "
        "through a tunnel (CONNECT). ncps asks hosts in `no_proxy`, this machine, other "
        "instances, Redis and the database directly. `proxy=` of one upstream overrides all of "
        "these, except for this machine.",
        note="as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say",
        is_secret=True,
        reloads=True,
    )
    min_receive_rate_bytes: int = setting(
        SIZE,
        "1K",
        "Bytes a second that an upstream must send of a NAR, on average over "
        "--cache-upstream-min-receive-window. If it is slower and another upstream has the same "
        "file, ncps continues there at the same byte, once for each NAR. It goes on with a slow "
        "upstream that is the only one. The same holds for another instance of this cache whose "
        "lease is free. 0 for no such limit.",
        reloads=True,
    )
    min_receive_window_s: float = setting(
        duration(at_least_s=0.001),
        "30s",
        "Time over which --cache-upstream-min-receive-rate is averaged, without the time in which "
        "ncps does not wait for the upstream.",
        reloads=True,
    )
    max_connections: int = setting(
        integer(at_least=1, at_most=10000),
        "32",
        "NARs that ncps fetches from each upstream at the same time, at most, each on a "
        "connection of its own; further ones wait for one to end.",
        shared=True,
        reloads=True,
    )
    max_queries: int = setting(
        integer(at_least=1, at_most=10000),
        "64",
        "Requests to each upstream for narinfos and other small files at the same time, at most. "
        "They have connections of their own, so that NARs cannot delay them. Requests that came "
        "through one other cache, through two, and through three or more have this number of "
        "places each.",
        shared=True,
        reloads=True,
    )
    max_prefetches: int = setting(
        integer(at_least=1, at_most=1000),
        "16",
        "Narinfos that ncps fetches ahead at the same time (--cache-prefetch), at most, and the "
        "same number of NARs. They have connections of their own at each upstream, so that no "
        "client waits for them.",
        shared=True,
    )
    max_queue: int = setting(
        integer(),
        "5000",
        "Requests for NARs that may wait for their turn at each upstream, and the same number of "
        "requests for small files. Further ones get 503 with Retry-After.",
        shared=True,
        counted=True,
        reloads=True,
    )
    queue_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "1m",
        "Time that a request may wait for its turn at an upstream. After that ncps asks another "
        "upstream, or the client gets 503 with Retry-After.",
        counted=True,
        reloads=True,
    )
    max_redirects: int = setting(
        integer(at_most=100),
        "10",
        "Redirects of an upstream that ncps follows for one request, at most.",
        counted=True,
        reloads=True,
    )
    max_header_size_bytes: int = setting(
        size(at_least=4096, at_most=16 * 1024 * 1024),
        "64K",
        "Bytes of the head of an upstream's answer, at most, interim answers included; ncps cuts "
        "the connection of a longer one.",
        counted=True,
        reloads=True,
    )
    away_answer: str = setting(
        choice(("absent", "error")),
        "absent",
        "Answer for a path that is not stored while ncps can ask no upstream: all have been away "
        "for some seconds, or refuse ncps. absent: 404, so that Nix builds the path, as it does "
        "without a cache, and remembers the answer for an hour. error: 503 with Retry-After, so "
        "that Nix fails, unless it has another substituter or `fallback`.",
    )
    allow_internal_addresses: bool = setting(
        BOOLEAN,
        "false",
        "Follow URLs in narinfos and redirects of an upstream on the internet to loopback, "
        "link-local, private and other addresses that are not on the internet. An upstream that "
        "itself has such an address may always lead to others.",
        reloads=True,
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs alone."""
        return tuple(upstream.url for upstream in self.upstreams)
