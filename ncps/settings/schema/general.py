"""Settings of logs and metrics, and of several instances that are one cache."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.network import PEER_URL
from ncps.settings.values import BOOLEAN, TEXT, choice, secret, show_boolean


@frozen(kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: str = setting(
        choice(("trace", "debug", "info", "warn", "error", "fatal", "panic")),
        "info",
        "Least important messages that are logged: trace, debug, info, warn, error, fatal or "
        "panic. trace means debug, panic means fatal.",
    )
    console_writer_enabled: bool = setting(
        BOOLEAN,
        lambda around: show_boolean(around.is_terminal),
        "Log lines for people instead of one JSON object a line.",
        note="true if standard output is a terminal",
    )
    console_writer_prefix: str = setting(
        TEXT,
        "",
        "Text put in front of every log line written for people.",
    )


@frozen(kw_only=True)
class PrometheusSettings:
    """Metrics."""

    enabled: bool = setting(
        BOOLEAN,
        "false",
        "Serve metrics for Prometheus at /metrics.",
    )


@frozen(kw_only=True)
class ClusterSettings:
    """How several instances that are one cache know each other."""

    advertise_url: str = setting(
        PEER_URL,
        "",
        "URL at which the other instances of this cache reach this one, such as "
        "http://10.0.0.7:8501. A NAR that it is fetching is then streamed to them while it "
        "arrives. Without it they wait until the NAR is stored. Needs --cluster-secret.",
    )
    secret: str = setting(
        secret(at_least=16),
        "",
        "What the instances of this cache sign their requests to each other with, the same for "
        "all: any text of at least 16 characters, such as `openssl rand -hex 32` prints. It is "
        "never sent.",
        is_secret=True,
    )
