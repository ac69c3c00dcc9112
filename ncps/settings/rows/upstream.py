"""Settings of the caches that are asked for what is not here."""

from __future__ import annotations

from ncps.settings.network import UPSTREAM_URL
from ncps.settings.proxies import PROXY
from ncps.settings.setting import Names, Setting
from ncps.settings.values import BOOLEAN, PATH, PUBLIC_KEY, SIZE, choice, duration, integer, size

ROWS = (
    Setting(
        flag="cache-upstream-url",
        environment="CACHE_UPSTREAM_URLS",
        key="cache.upstream.urls",
        attribute="cache.upstream.upstreams",
        kind=UPSTREAM_URL,
        default=("https://cache.nixos.org",),
        repeatable=True,
        aliases=(
            Names(
                flag="upstream-cache",
                environment="UPSTREAM_CACHES",
                key="cache.upstream.caches",
            ),
        ),
        group="Upstreams",
        help="Binary cache to fetch from, one or several. Parameters hold for that one alone: "
        "?priority=N (0 to 65535, lower is asked first, 0 and none mean 40), &dialer-timeout=, "
        "&response-header-timeout=, &nar-timeout=, &idle-timeout=, &proxy=. In a configuration "
        "file an element may also be a table of url and these. Credentials are better kept in the "
        "netrc file than in the URL.",
    ),
    Setting(
        flag="cache-upstream-public-key",
        environment="CACHE_UPSTREAM_PUBLIC_KEYS",
        key="cache.upstream.public-keys",
        kind=PUBLIC_KEY,
        default=(),
        default_note="the key of cache.nixos.org, if that is an upstream",
        repeatable=True,
        aliases=(Names(flag="upstream-public-key", environment="UPSTREAM_PUBLIC_KEYS"),),
        group="Upstreams",
        help="Public key NAME:BASE64 that narinfos of upstreams may be signed with, one or several."
        " The well-known key of cache.nixos.org need not be given.",
    ),
    Setting(
        flag="cache-upstream-dialer-timeout",
        key="cache.upstream.dialer-timeout",
        kind=duration(at_least_s=0.001),
        default="3s",
        aliases=(Names(flag="upstream-dialer-timeout", environment="UPSTREAM_DIALER_TIMEOUT"),),
        group="Upstreams",
        help="Time to connect to an upstream.",
    ),
    Setting(
        flag="cache-upstream-response-header-timeout",
        key="cache.upstream.response-header-timeout",
        kind=duration(at_least_s=0.001),
        default="3s",
        aliases=(
            Names(
                flag="upstream-response-header-timeout",
                environment="UPSTREAM_RESPONSE_HEADER_TIMEOUT",
            ),
        ),
        group="Upstreams",
        help="Time an upstream has to start its answer, unless that is a NAR.",
    ),
    Setting(
        flag="cache-upstream-nar-timeout",
        key="cache.upstream.nar-timeout",
        kind=duration(at_least_s=0.001),
        default="50s",
        group="Upstreams",
        help="Time an upstream has to start the answer with a NAR, which some have to fetch or to "
        "put together first. Another upstream that has the NAR is asked long before; an upstream "
        "that answers nothing else meanwhile is not waited for that long. Proxies in front of this "
        "cache often wait for 60s, Nix for 300s.",
    ),
    Setting(
        flag="cache-upstream-idle-timeout",
        key="cache.upstream.idle-timeout",
        kind=duration(at_least_s=0.001),
        default="20s",
        group="Upstreams",
        help="Time an upstream may send nothing in the middle of its answer.",
    ),
    Setting(
        flag="cache-upstream-proxy",
        key="cache.upstream.proxy",
        kind=PROXY,
        default="",
        default_note="as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say",
        is_secret=True,
        group="Upstreams",
        help="HTTP proxy through which upstreams are asked, such as http://proxy.example.org:3128, "
        "with https:// if it is spoken to over TLS, credentials before an @ in it; or `none`. "
        "https goes through a tunnel (CONNECT). Hosts in `no_proxy`, this machine, other "
        "instances, Redis and the database are asked directly. `proxy=` of one upstream goes "
        "before all that, but this machine.",
    ),
    Setting(
        flag="cache-upstream-min-receive-rate",
        key="cache.upstream.min-receive-rate",
        kind=SIZE,
        default="1K",
        group="Upstreams",
        help="Bytes a second that an upstream must send of a NAR, on average over "
        "--cache-upstream-min-receive-window. A slower one is left, once for each NAR, where "
        "another upstream has the same file, which then goes on from the byte there is; alone, it "
        "may go on. So is another instance of this cache whose lease is free. 0 for no such limit.",
    ),
    Setting(
        flag="cache-upstream-min-receive-window",
        key="cache.upstream.min-receive-window",
        kind=duration(at_least_s=0.001),
        default="30s",
        group="Upstreams",
        help="Time over which --cache-upstream-min-receive-rate is averaged. Only time in which "
        "the upstream is waited for counts.",
    ),
    Setting(
        flag="cache-upstream-max-connections",
        key="cache.upstream.max-connections",
        kind=integer(at_least=1, at_most=10000),
        default="32",
        group="Upstreams",
        help="NARs fetched from each upstream at once, at most, each on a connection of its own; "
        "further ones wait for one to end.",
    ),
    Setting(
        flag="cache-upstream-max-queries",
        key="cache.upstream.max-queries",
        kind=integer(at_least=1, at_most=10000),
        default="64",
        group="Upstreams",
        help="Narinfos and other small things asked of each upstream at once, at most, on "
        "connections besides those for NARs, so that these cannot hold them up.",
    ),
    Setting(
        flag="cache-upstream-max-queue",
        key="cache.upstream.max-queue",
        kind=integer(),
        default="5000",
        group="Upstreams",
        help="Requests that may wait for their turn at each upstream: so many for NARs, and so "
        "many for small things. More are told to come back (503 with Retry-After).",
    ),
    Setting(
        flag="cache-upstream-queue-timeout",
        key="cache.upstream.queue-timeout",
        kind=duration(at_least_s=0.001),
        default="1m",
        group="Upstreams",
        help="Time that a request may wait for its turn at an upstream. After that another "
        "upstream is asked, or the client is told to come back.",
    ),
    Setting(
        flag="cache-upstream-max-redirects",
        key="cache.upstream.max-redirects",
        kind=integer(at_most=100),
        default="10",
        group="Upstreams",
        help="Redirects of an upstream that are followed for one request, at most.",
    ),
    Setting(
        flag="cache-upstream-max-header-size",
        key="cache.upstream.max-header-size",
        kind=size(at_least=4096, at_most=16 * 1024 * 1024),
        default="64K",
        group="Upstreams",
        help="Bytes of the head of an upstream's answer, at most, interim answers included; the "
        "connection of a longer one is cut.",
    ),
    Setting(
        flag="cache-upstream-away-answer",
        key="cache.upstream.away-answer",
        kind=choice(("absent", "error")),
        default="absent",
        group="Upstreams",
        help="What clients are told of a path that is not here while no upstream can be asked: all "
        "have been away for some seconds, or refuse us. absent: 404, so that Nix builds what it "
        "needs, as it does without a cache; it remembers that for an hour. error: 503 with "
        "Retry-After, so that Nix ends, unless it has another substituter or `fallback`.",
    ),
    Setting(
        flag="cache-upstream-allow-internal-addresses",
        key="cache.upstream.allow-internal-addresses",
        kind=BOOLEAN,
        default="false",
        group="Upstreams",
        help="Follow what an upstream on the internet says, a URL in a narinfo or a redirect, to"
        " loopback, link-local, private and other addresses that are not of the internet. An"
        " upstream that is at such an address itself may always lead to others.",
    ),
    Setting(
        flag="netrc-file",
        key="cache.netrc-file",
        kind=PATH,
        default=lambda around: str(around.home / ".netrc"),
        default_note="~/.netrc",
        group="Upstreams",
        help="File with user names and passwords for upstreams, by host name. It may be missing.",
    ),
)
