"""The settings as one frozen tree of plain values: seconds are float, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from attrs import field, frozen

from ncps.settings.declare import branch, divide, setting
from ncps.settings.kinds.values import PATH
from ncps.settings.schema.auth import AuthSettings
from ncps.settings.schema.cache import CacheSettings
from ncps.settings.schema.general import ClusterSettings, LogSettings, PrometheusSettings
from ncps.settings.schema.server import ServerSettings
from ncps.settings.schema.telemetry import OpenTelemetrySettings


@frozen(kw_only=True)
class Settings:
    """All settings, and where each came from.

    :ivar config_file: the file that was read, if any.
    :ivar warnings: one line each, for the log.
    :ivar given: the flags with their texts, secrets among them, for a reload.
    """

    config_file: Path | None = setting(
        PATH,
        "",
        "Configuration file in YAML, TOML or JSON, as the end of its name says. A file named here "
        "must exist; the default one may be missing. Flags and variables win over it.",
        note="the user's configuration directory, ncps/config.{yaml,yml,toml,json}",
        key="",
        flag="config",
        environment="NCPS_CONFIG_FILE",
        bare=None,
    )
    log: LogSettings = branch(LogSettings)
    prometheus: PrometheusSettings = branch(PrometheusSettings)
    opentelemetry: OpenTelemetrySettings = branch(OpenTelemetrySettings, "Telemetry")
    server: ServerSettings = branch(ServerSettings, "Server")
    auth: AuthSettings = branch(AuthSettings, "Authentication")
    cache: CacheSettings = branch(CacheSettings, "Cache")
    cluster: ClusterSettings = branch(ClusterSettings, "Cluster")
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(
        default=MappingProxyType({}), repr=False, eq=False, hash=False
    )

    given: Mapping[str, Sequence[str]] = field(
        default=MappingProxyType({}), repr=False, eq=False, hash=False
    )

    def origin(self, key: str) -> str:
        """Return the source of the value of a key: a flag, a variable, a file or `default`."""
        return self.origins[key]

    def share(self) -> Settings:
        """Return the settings of one of `server.workers` workers.

        Limits that protect the machine, the upstreams and the memory as a whole are divided.
        The kernel spreads connections by chance, so a worker may refuse one while another has
        room. The default limits are therefore far above the needs of a healthy installation.
        """
        return divide(self, self.server.workers)
