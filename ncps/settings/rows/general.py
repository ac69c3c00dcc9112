"""Settings of the program and of its own listening sockets."""

from __future__ import annotations

from ncps.settings.network import ADDRESS, PROXY
from ncps.settings.setting import Setting
from ncps.settings.values import (
    BOOLEAN,
    PATH,
    SIZE,
    TEXT,
    choice,
    duration,
    integer,
    show_boolean,
    size,
)

LOG_LEVELS = ("trace", "debug", "info", "warn", "error", "fatal", "panic")

ROWS = (
    Setting(
        flag="config",
        environment="NCPS_CONFIG_FILE",
        key="",
        attribute="config_file",
        kind=PATH,
        default="",
        default_note="the user's configuration directory, ncps/config.{yaml,yml,toml,json}",
        group="General",
        help="Configuration file in YAML, TOML or JSON, told apart by its name. A file named here "
        "must exist; the default one may be missing. Flags and variables win over it.",
    ),
    Setting(
        flag="log-level",
        key="log.level",
        kind=choice(LOG_LEVELS),
        default="info",
        group="General",
        help="Least important messages that are logged: trace, debug, info, warn, error, fatal or "
        "panic. trace means debug, panic means fatal.",
    ),
    Setting(
        flag="log-console-writer-enabled",
        key="log.console-writer-enabled",
        kind=BOOLEAN,
        default=lambda around: show_boolean(around.is_terminal),
        default_note="true if standard output is a terminal",
        group="General",
        help="Log lines for people instead of one JSON object a line.",
    ),
    Setting(
        flag="log-console-writer-prefix",
        key="log.console-writer-prefix",
        kind=TEXT,
        default="",
        group="General",
        help="Text put in front of every log line written for people.",
    ),
    Setting(
        flag="prometheus-enabled",
        key="prometheus.enabled",
        kind=BOOLEAN,
        default="false",
        group="General",
        help="Serve metrics for Prometheus at /metrics.",
    ),
    Setting(
        flag="server-addr",
        key="server.addr",
        kind=ADDRESS,
        default=("tcp:8501:interface=127.0.0.1",),
        repeatable=True,
        group="Server",
        help="Address to listen on, one or several. HOST:PORT; :PORT for all interfaces, IPv6 and "
        "IPv4; [IPV6]:PORT; or an endpoint of Twisted: tcp:8501:interface=192.0.2.1, "
        "unix:/run/ncps.sock:mode=660, systemd:domain=INET6:name=http.",
    ),
    Setting(
        flag="server-idle-timeout",
        key="server.idle-timeout",
        kind=duration(at_least_s=1),
        default="120s",
        group="Server",
        help="Close a client's connection that has been quiet for so long between requests. Nix "
        "uses idle connections again for up to 90 seconds, so less than that costs it retries.",
    ),
    Setting(
        flag="server-header-timeout",
        key="server.header-timeout",
        kind=duration(at_least_s=0.1),
        default="10s",
        group="Server",
        help="Time a client has to send the head of a request.",
    ),
    Setting(
        flag="server-write-stall-timeout",
        key="server.write-stall-timeout",
        kind=duration(at_least_s=1),
        default="5m",
        group="Server",
        help="Cut off a client that has taken no byte of its answer for so long. What slow clients "
        "must take is said by --server-min-send-rate.",
    ),
    Setting(
        flag="server-drain-timeout",
        key="server.drain-timeout",
        kind=duration(),
        default="30s",
        group="Server",
        help="Time that running answers have to finish after SIGTERM, before they are cut off. A "
        "second SIGTERM or SIGINT cuts them at once.",
    ),
    Setting(
        flag="server-drain-delay",
        key="server.drain-delay",
        kind=duration(),
        default="0s",
        group="Server",
        help="Time after SIGTERM in which everything is served as before, but /readyz says no "
        "(503), so that a load balancer goes elsewhere first. --server-drain-timeout begins after "
        "it.",
    ),
    Setting(
        flag="server-min-send-rate",
        key="server.min-send-rate",
        kind=SIZE,
        default="1K",
        group="Server",
        help="Bytes a second that a client must take of its answer, on average over "
        "--server-min-send-window; a slower one is cut off and may resume. 0 for no such limit.",
    ),
    Setting(
        flag="server-min-send-window",
        key="server.min-send-window",
        kind=duration(at_least_s=1),
        default="5m",
        group="Server",
        help="Time over which --server-min-send-rate is averaged. Only time in which a client "
        "is waited for counts, not that in which an upstream is.",
    ),
    Setting(
        flag="server-max-connections",
        key="server.max-connections",
        kind=integer(at_least=1),
        default="10000",
        group="Server",
        help="Open connections of clients, at most; more are closed at once. Where the limit of "
        "descriptors has room for fewer, new ones wait, and the start says so.",
    ),
    Setting(
        flag="server-max-connections-per-address",
        key="server.max-connections-per-address",
        kind=integer(),
        default="1000",
        group="Server",
        help="Open connections from one IPv4 address or one IPv6 /64 network, at most; more are "
        "closed at once. 0 for no such limit, which suits a cache behind a large NAT. Connections "
        "over a UNIX socket are not counted. Of --server-trusted-proxies the requests are counted "
        "instead, each for the client that it comes from; more are told to come back (503).",
    ),
    Setting(
        flag="server-trusted-proxies",
        key="server.trusted-proxies",
        kind=PROXY,
        default=(),
        default_note="nobody is believed",
        repeatable=True,
        group="Server",
        help="Reverse proxies that are believed when they say who asks, in X-Forwarded-For, or in "
        "Forwarded where there is none: addresses and networks such as 127.0.0.1 or 10.0.0.0/8, "
        "and unix for connections over a UNIX socket. The last address named there that is none of "
        "theirs is the client, in the log and for limits. They must add to X-Forwarded-For.",
    ),
    Setting(
        flag="server-max-requests",
        key="server.max-requests",
        kind=integer(at_least=1),
        default="5000",
        group="Server",
        help="Requests of clients that are being answered at once, at most, slow readers of NARs "
        "included; more are told to come back (503 with Retry-After). /healthz, /readyz and "
        "/metrics are always answered.",
    ),
    Setting(
        flag="server-max-header-size",
        key="server.max-header-size",
        kind=size(at_least=1024, at_most=1024 * 1024),
        default="16K",
        group="Server",
        help="Size of the head of a request, at most, its first line included; 431 beyond.",
    ),
    Setting(
        flag="server-max-headers",
        key="server.max-headers",
        kind=integer(at_least=16, at_most=10000),
        default="500",
        group="Server",
        help="Fields in the head of a request, at most; 431 beyond.",
    ),
)
