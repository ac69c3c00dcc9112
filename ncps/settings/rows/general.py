"""Settings of the program and of its own listening sockets."""

from __future__ import annotations

from ncps.settings.network import ADDRESS
from ncps.settings.setting import Setting
from ncps.settings.values import BOOLEAN, PATH, TEXT, choice, duration, integer, show_boolean

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
        help="Cut off a client that has taken no byte of its answer for so long. Slow clients that "
        "make progress are never cut off.",
    ),
    Setting(
        flag="server-drain-timeout",
        key="server.drain-timeout",
        kind=duration(),
        default="30s",
        group="Server",
        help="Time that running answers have to finish after SIGTERM, before they are cut off.",
    ),
    Setting(
        flag="server-max-connections",
        key="server.max-connections",
        kind=integer(at_least=1),
        default="10000",
        group="Server",
        help="Open connections of clients, at most; more wait until one closes.",
    ),
)
