"""Nine typical configurations of the Go program and of its packages.

`tests.unit.settings.test_configurations` reads them, `tests.cluster.test_configurations` starts
them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve, field, frozen

NIXOS: Final = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
COMMUNITY: Final = "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
OFF: Final = "has no effect"

Told = tuple[tuple[str, ...], ...]
"""Words of the expected warnings: one tuple for each warning, in order."""


@frozen(kw_only=True)
class Configuration:
    """Flags, a file and an environment for the program, and the expected warnings.

    :param flags: as operators write them, without `serve`.
    :param file: text of a configuration file; empty if there is none.
    :param suffix: of that file's name.
    :param told: all warnings that the program must print.
    """

    flags: Sequence[str] = ()
    file: str = field(default="", converter=textwrap.dedent)
    suffix: str = "yaml"
    environment: Mapping[str, str] = field(factory=dict)
    told: Told = ()

    def replaced(self, others: Mapping[str, str]) -> Configuration:
        """Return the same with texts replaced by others, the longest texts first."""
        longest = sorted(others, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest)))

        def other(text: str) -> str:
            return pattern.sub(lambda found: others[found[0]], text)

        return evolve(
            self,
            flags=[other(flag) for flag in self.flags],
            file=other(self.file),
            environment={name: other(text) for name, text in self.environment.items()},
        )


MODULE: Final = """\
    --cache-hostname=cache.lan --cache-database-url=sqlite:/var/lib/ncps/db/db.sqlite
    --cache-temp-path=/tmp --server-addr=:8501 --log-level=info --cache-lock-backend=local
    --cache-lock-download-ttl=5m --cache-lock-lru-ttl=30m --cache-lock-retry-max-attempts=3
    --cache-lock-retry-initial-delay=100ms --cache-lock-retry-max-delay=2s
    --cache-lock-retry-jitter --cache-upstream-url=https://cache.nixos.org
"""
"""Flags that the NixOS module always gives."""

_CHART: Final = """\
    cache:
      hostname: ncps.example.com
      allow-put-verb: true
      storage:
        s3: {bucket: ncps-bucket, endpoint: "https://s3.example.com", region: eu-central-1,
             force-path-style: true, access-key-id: chart-id, secret-access-key: chart-secret}
      database-url: "postgresql://ncps:pw@pg-rw:5432/ncps?sslmode=require&connect_timeout=10"
      database: {pool: {max-open-conns: 50, max-idle-conns: 10}}
      cdc: {enabled: true, min: 16384, avg: 65536, max: 262144}
      inflight-staging: {enabled: true}
      redis: {addrs: ["redis-master:6379"], pool-size: 10}
      lock: {backend: redis, download-lock-ttl: 5m, lru-lock-ttl: 30m}
      upstream:
        urls: ["https://cache.nixos.org", "https://nix-community.cachix.org?priority=41"]
        public-keys: [KEYS]
    prometheus: {enabled: true}
""".replace("KEYS", f'"{NIXOS}", "{COMMUNITY}"')

CONFIGURATIONS: Final = {
    "the NixOS module": Configuration(
        flags=[
            *MODULE.split(),
            "--cache-storage-local=/var/lib/ncps",
            f"--cache-upstream-public-key={NIXOS}",
        ],
    ),
    "the NixOS module with uploads": Configuration(
        flags=[
            *MODULE.split(),
            "--cache-storage-local=/var/lib/ncps",
            "--cache-allow-put-verb",
            "--cache-allow-delete-verb",
            "--cache-secret-key-path=/run/credentials/key",
        ],
    ),
    "the NixOS module with PostgreSQL on the machine": Configuration(
        flags=[
            *MODULE.replace("sqlite:/var/lib/ncps/db/db.sqlite", "postgresql:///ncps").split(),
            "--cache-storage-local=/data/ncps",
            "--cache-max-size=100G",
            "--cache-lru-schedule=@daily",
            "--cache-lru-schedule-timezone=Local",
        ],
    ),
    "the NixOS module with a bucket": Configuration(
        flags=[
            *MODULE.split(),
            "--cache-storage-s3-bucket=ncps-bucket",
            "--cache-storage-s3-endpoint=http://minio:9000",
            "--cache-storage-s3-access-key-id-file=/run/credentials/s3-id",
            "--cache-storage-s3-secret-access-key-file=/run/credentials/s3-secret",
            "--cache-storage-s3-force-path-style",
            "--cache-storage-s3-region=us-east-1",
            "--prometheus-enabled",
        ],
    ),
    "the chart with several replicas": Configuration(
        file=_CHART,
        told=(
            ("cdc.enabled", "stored whole"),
            ("inflight-staging.enabled", OFF),
            ("lock-download-ttl 5m", "shortened to 30s"),
        ),
    ),
    "a compose file": Configuration(
        environment={
            "CACHE_HOSTNAME": "ncps",
            "CACHE_DATABASE_URL": "mysql://ncps:pw@mariadb:3306/ncps?parseTime=true&timeout=10s",
            "CACHE_STORAGE_LOCAL": "/storage",
            "CACHE_TEMP_PATH": "/storage/tmp",
            "CACHE_UPSTREAM_URL": "https://cache.nixos.org,https://nix-community.cachix.org",
            "CACHE_UPSTREAM_PUBLIC_KEYS": f"{NIXOS},{COMMUNITY[:-1]}",
            "CACHE_MAX_SIZE": "50GiB",
            "CACHE_LRU_SCHEDULE": "0 3 * * *",
            "CACHE_LRU_SCHEDULE_TZ": "Europe/Berlin",
            "ANALYTICS_REPORTING_ENABLED": "false",
            "LOG_LEVEL": "debug",
            "PATH": "/bin",
            "TZ": "Europe/Berlin",
        },
        told=(("CACHE_UPSTREAM_URL ", "CACHE_UPSTREAM_URLS"),),
    ),
    "a command of Docker": Configuration(
        flags=[
            "--cache-hostname=nas",
            "--cache-data-path=/storage",
            "--cache-database-url=sqlite:/storage/d",
            "--upstream-cache=https://cache.nixos.org?trusted=true&want-mass-query=true",
            f"--upstream-public-key={NIXOS}",
        ],
        told=(("cache-data-path",), ("upstream-cache",), ("public-key",), ("trusted",), ("mass",)),
    ),
    "a file after documents of old": Configuration(
        file="""\
        log: {level: info}
        otel: {enabled: true, grpc-url: "http://otel:4317"}
        server: {addr: ":8501"}
        cache:
          hostname: cache.example.com
          storage: {local: /var/lib/ncps}
          database-url: "postgresql:///ncps?host=/run/postgresql&user=ncps&port=5432"
          upstream: {urls: ["https://cache.nixos.org"]}
        """,
        told=(("otel", OFF, "opentelemetry"),),
    ),
    "a TOML file behind a proxy": Configuration(
        suffix="toml",
        file="""\
        [server]
        addr = ["unix:/run/ncps/ncps.sock:mode=666"]
        trusted-proxies = ["unix"]
        [cache]
        hostname = "cache.example.com"
        database-url = "postgresql://ncps:pw@db1,db2/ncps?target_session_attrs=read-write"
        [cache.storage]
        local = "/srv/ncps"
        [pprof]
        addr = ":6060"
        """,
        told=(("pprof.addr", OFF),),
    ),
}
