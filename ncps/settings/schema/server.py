"""Settings of the server: its listening sockets and the limits of clients."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.network import ADDRESS
from ncps.settings.network import PROXY as TRUSTED_PROXY
from ncps.settings.values import SIZE, duration, integer, size


@frozen(kw_only=True)
class ServerSettings:
    """The listening sockets, and what clients may take of the server."""

    addr: tuple[str, ...] = setting(
        ADDRESS,
        ("tcp:8501:interface=127.0.0.1",),
        "Address to listen on, one or several. HOST:PORT; :PORT for all interfaces, IPv6 and "
        "IPv4; [IPV6]:PORT; or an endpoint of Twisted: tcp:8501:interface=192.0.2.1, "
        "unix:/run/ncps.sock:mode=660, systemd:domain=INET6:name=http.",
    )
    idle_timeout_s: float = setting(
        duration(at_least_s=1),
        "120s",
        "Close a client's connection that has been quiet for this time between requests. Nix uses "
        "idle connections again for up to 90 seconds, so less than that costs it retries.",
    )
    header_timeout_s: float = setting(
        duration(at_least_s=0.1),
        "10s",
        "Time a client has to send the head of a request.",
    )
    write_stall_timeout_s: float = setting(
        duration(at_least_s=1),
        "5m",
        "Cut off a client that has taken no byte of its answer for this time. What slow clients "
        "must take is said by --server-min-send-rate.",
    )
    drain_timeout_s: float = setting(
        duration(),
        "30s",
        "Time that running answers have to finish after SIGTERM, before they are cut off. A "
        "second SIGTERM or SIGINT cuts them at once.",
    )
    drain_delay_s: float = setting(
        duration(),
        "0s",
        "Time after SIGTERM in which everything is served as before, but /readyz says no (503), "
        "so that a load balancer goes elsewhere first. --server-drain-timeout begins after it.",
    )
    min_send_rate_bytes: int = setting(
        SIZE,
        "1K",
        "Bytes a second that a client must take of its answer, on average over "
        "--server-min-send-window; a slower one is cut off and may resume. 0 for no such limit.",
    )
    min_send_window_s: float = setting(
        duration(at_least_s=1),
        "5m",
        "Time over which --server-min-send-rate is averaged. Only time in which a client is "
        "waited for counts, not that in which an upstream is.",
    )
    max_connections: int = setting(
        integer(at_least=1),
        "10000",
        "Open connections of clients, at most; more are closed at once. Where the limit of "
        "descriptors has room for fewer, new ones wait, and the start says so.",
        shared=True,
    )
    max_connections_per_address: int = setting(
        integer(),
        "1000",
        "Open connections from one IPv4 address or one IPv6 /64 network, at most; more are closed "
        "at once. 0 for no such limit, which suits a cache behind a large NAT. Connections over a "
        "UNIX socket are not counted. Of --server-trusted-proxies the requests are counted "
        "instead, each for the client that it comes from; more are told to come back (503).",
        shared=True,
    )
    trusted_proxies: tuple[str, ...] = setting(
        TRUSTED_PROXY,
        (),
        "Reverse proxies that are believed when they say who asks, in X-Forwarded-For, or in "
        "Forwarded where there is none: addresses and networks such as 127.0.0.1 or 10.0.0.0/8, "
        "and unix for connections over a UNIX socket. The last address named there that is none "
        "of theirs is the client, in the log and for limits. They must add to X-Forwarded-For.",
        note="nobody is believed",
    )
    max_requests: int = setting(
        integer(at_least=1),
        "5000",
        "Requests of clients that are being answered at once, at most, slow readers of NARs "
        "included; more are told to come back (503 with Retry-After). /healthz, /readyz and "
        "/metrics are always answered.",
        shared=True,
    )
    max_header_size_bytes: int = setting(
        size(at_least=1024, at_most=1024 * 1024),
        "16K",
        "Size of the head of a request, at most, its first line included; 431 beyond.",
    )
    max_headers: int = setting(
        integer(at_least=16, at_most=10000),
        "500",
        "Fields in the head of a request, at most; 431 beyond.",
    )
    workers: int = setting(
        integer(at_least=1, at_most=256),
        "1",
        "Processes that serve, on one port and one store; with more than one, another process "
        "looks after them. More than there are processor cores is of no use. What the other "
        "limits grant to all clients together is divided among them. Linux only, and not under "
        "twistd.",
        flag="workers",
        environment="SERVER_WORKERS",
    )
