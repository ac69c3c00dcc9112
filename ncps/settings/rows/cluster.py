"""Settings of several instances that are one cache."""

from __future__ import annotations

from ncps.settings.network import PEER_URL
from ncps.settings.setting import Setting
from ncps.settings.values import duration, secret

ROWS = (
    Setting(
        flag="cluster-advertise-url",
        key="cluster.advertise-url",
        kind=PEER_URL,
        default="",
        group="Cluster",
        help="URL at which the other instances of this cache reach this one, such as "
        "http://10.0.0.7:8501. A NAR that it is fetching is then streamed to them while it "
        "arrives. Without it they wait until the NAR is stored. Needs --cluster-secret.",
    ),
    Setting(
        flag="cluster-secret",
        key="cluster.secret",
        kind=secret(at_least=16),
        default="",
        is_secret=True,
        group="Cluster",
        help="What the instances of this cache sign their requests to each other with, the same "
        "for all: any text of at least 16 characters, such as `openssl rand -hex 32` prints. It is "
        "never sent.",
    ),
    Setting(
        flag="cache-download-poll-timeout",
        key="cache.download.poll-timeout",
        kind=duration(at_least_s=0.001),
        default="30s",
        group="Cluster",
        help="Time for which a NAR that another instance is fetching is waited for while that one "
        "cannot be reached, before clients are told to come back (504 with Retry-After).",
    ),
)
