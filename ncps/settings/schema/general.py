"""Settings of logs and metrics, and of several instances that are one cache."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.network import PEER_URL
from ncps.settings.kinds.values import BOOLEAN, TEXT, choice, secret, show_boolean


@frozen(kw_only=True)
class LogSettings:
    """The level and the form of the log."""

    level: str = setting(
        choice(("trace", "debug", "info", "warn", "error", "fatal", "panic")),
        "info",
        "Level of the least important messages that are logged: trace, debug, info, warn, error, "
        "fatal or panic. debug shows decisions, such as the order in which ncps asks upstreams. "
        "trace also shows the steps of Twisted, and panic means fatal.",
        reloads=True,
    )
    console_writer_enabled: bool = setting(
        BOOLEAN,
        lambda around: show_boolean(around.is_terminal or around.is_journal),
        "Write log lines for people instead of one JSON object a line.",
        note="true if standard output is a terminal or the journal of systemd",
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
        "http://10.0.0.7:8501. They can then stream a NAR from this instance while it is fetching "
        "it. Without this setting they wait until the NAR is stored. Needs --cluster-secret.",
    )
    secret: str = setting(
        secret(at_least=16),
        "",
        "Secret with which the instances of this cache sign their requests to each other, the "
        "same for all: any text of at least 16 characters, such as `openssl rand -hex 32` prints. "
        "It is never sent.",
        is_secret=True,
    )
