"""Settings of the caches that are asked for what is not here."""

from __future__ import annotations

from attrs import field, frozen

from ncps.settings.declare import setting
from ncps.settings.network import UPSTREAM_URL
from ncps.settings.proxies import PROXY as UPSTREAM_PROXY
from ncps.settings.proxies import ProxiesSetting, ProxyURL
from ncps.settings.setting import SettingNames
from ncps.settings.values import BOOLEAN, PUBLIC_KEY, SIZE, choice, duration, integer, size


@frozen(kw_only=True)
class UpstreamSetting:
    """One upstream, everything about it decided.

    :ivar url: base URL without credentials, query and trailing slash.
    :ivar priority: lower is asked first.
    :ivar proxies: through which it, and what it leads to, is asked.
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
    """The caches to fetch from, and the patience with them.

    :ivar upstreams: with timeouts of their own where given, else those of all.
    :ivar public_keys: as Nix writes them, each checked for its form.
    :ivar proxy: for all upstreams that have none of their own; None for what the environment says.
    """

    upstreams: tuple[UpstreamSetting, ...] = setting(
        UPSTREAM_URL,
        ("https://cache.nixos.org",),
        "Binary cache to fetch from, one or several. Parameters hold for that one alone: "
        "?priority=N (0 to 65535, lower is asked first, 0 and none mean 40), &dialer-timeout=, "
        "&response-header-timeout=, &nar-timeout=, &idle-timeout=, &proxy=. In a configuration "
        "file an element may also be a table of url and these. Credentials are better kept in the "
        "netrc file than in the URL.",
        key="urls",
        flag="cache-upstream-url",
        environment="CACHE_UPSTREAM_URLS",
        aliases=(
            SettingNames(
                flag="upstream-cache", environment="UPSTREAM_CACHES", key="cache.upstream.caches"
            ),
        ),
        bare=(),
    )
    public_keys: tuple[str, ...] = setting(
        PUBLIC_KEY,
        (),
        "Public key NAME:BASE64 that narinfos of upstreams may be signed with, one or several. "
        "The well-known key of cache.nixos.org need not be given.",
        note="the key of cache.nixos.org, if that is an upstream",
        flag="cache-upstream-public-key",
        environment="CACHE_UPSTREAM_PUBLIC_KEYS",
        aliases=(SettingNames(flag="upstream-public-key", environment="UPSTREAM_PUBLIC_KEYS"),),
    )
    dialer_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "3s",
        "Time to connect to an upstream.",
        aliases=(
            SettingNames(flag="upstream-dialer-timeout", environment="UPSTREAM_DIALER_TIMEOUT"),
        ),
    )
    response_header_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "3s",
        "Time an upstream has to start its answer, unless that is a NAR.",
        aliases=(
            SettingNames(
                flag="upstream-response-header-timeout",
                environment="UPSTREAM_RESPONSE_HEADER_TIMEOUT",
            ),
        ),
    )
    nar_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "50s",
        "Time an upstream has to start the answer with a NAR, which some have to fetch or to put "
        "together first. Another upstream that has the NAR is asked long before; an upstream that "
        "answers nothing else meanwhile is not waited for that long. Proxies in front of this "
        "cache often wait for 60s, Nix for 300s.",
    )
    idle_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "20s",
        "Time an upstream may send nothing in the middle of its answer.",
    )
    proxy: ProxyURL | None = setting(
        UPSTREAM_PROXY,
        "",
        "HTTP proxy through which upstreams are asked, such as http://proxy.example.org:3128, "
        "with https:// if it is spoken to over TLS, credentials before an @ in it; or `none`. "
        "https goes through a tunnel (CONNECT). Hosts in `no_proxy`, this machine, other "
        "instances, Redis and the database are asked directly. `proxy=` of one upstream goes "
        "before all that, but this machine.",
        note="as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say",
        is_secret=True,
    )
    min_receive_rate_bytes: int = setting(
        SIZE,
        "1K",
        "Bytes a second that an upstream must send of a NAR, on average over "
        "--cache-upstream-min-receive-window. A slower one is left, once for each NAR, where "
        "another upstream has the same file, which then goes on from the byte there is; alone, it "
        "may go on. So is another instance of this cache whose lease is free. 0 for no such "
        "limit.",
    )
    min_receive_window_s: float = setting(
        duration(at_least_s=0.001),
        "30s",
        "Time over which --cache-upstream-min-receive-rate is averaged. Only time in which the "
        "upstream is waited for counts.",
    )
    max_connections: int = setting(
        integer(at_least=1, at_most=10000),
        "32",
        "NARs fetched from each upstream at once, at most, each on a connection of its own; "
        "further ones wait for one to end.",
        shared=True,
    )
    max_queries: int = setting(
        integer(at_least=1, at_most=10000),
        "64",
        "Narinfos and other small things asked of each upstream at once, at most, on connections "
        "besides those for NARs, so that these cannot hold them up.",
        shared=True,
    )
    max_queue: int = setting(
        integer(),
        "5000",
        "Requests that may wait for their turn at each upstream: this number for NARs, and this "
        "number for small things. More are told to come back (503 with Retry-After).",
        shared=True,
    )
    queue_timeout_s: float = setting(
        duration(at_least_s=0.001),
        "1m",
        "Time that a request may wait for its turn at an upstream. After that another upstream is "
        "asked, or the client is told to come back.",
    )
    max_redirects: int = setting(
        integer(at_most=100),
        "10",
        "Redirects of an upstream that are followed for one request, at most.",
    )
    max_header_size_bytes: int = setting(
        size(at_least=4096, at_most=16 * 1024 * 1024),
        "64K",
        "Bytes of the head of an upstream's answer, at most, interim answers included; the "
        "connection of a longer one is cut.",
    )
    away_answer: str = setting(
        choice(("absent", "error")),
        "absent",
        "What clients are told of a path that is not here while no upstream can be asked: all "
        "have been away for some seconds, or refuse us. absent: 404, so that Nix builds what it "
        "needs, as it does without a cache; it remembers that for an hour. error: 503 with "
        "Retry-After, so that Nix ends, unless it has another substituter or `fallback`.",
    )
    allow_internal_addresses: bool = setting(
        BOOLEAN,
        "false",
        "Follow what an upstream on the internet says, a URL in a narinfo or a redirect, to "
        "loopback, link-local, private and other addresses that are not of the internet. An "
        "upstream that is at such an address itself may always lead to others.",
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs alone."""
        return tuple(upstream.url for upstream in self.upstreams)
