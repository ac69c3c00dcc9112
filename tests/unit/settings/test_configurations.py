"""Nine configurations as people run them, of the Go program and of its packages: all start.

What each of them may be told is counted, so that a setting that begins to earn a warning is seen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings import Settings, load
from tests.unit.settings.around import surroundings

NIXOS = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
COMMUNITY = "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
NIXOS_FLAG = f"--cache-upstream-public-key={NIXOS}"
OFF = "has no effect"

MODULE = """\
    --cache-hostname=cache.lan --cache-database-url=sqlite:/var/lib/ncps/db/db.sqlite
    --cache-temp-path=/tmp --server-addr=:8501 --log-level=info --cache-lock-backend=local
    --cache-lock-download-ttl=5m --cache-lock-lru-ttl=30m --cache-lock-retry-max-attempts=3
    --cache-lock-retry-initial-delay=100ms --cache-lock-retry-max-delay=2s
    --cache-lock-retry-jitter --cache-upstream-url=https://cache.nixos.org
"""
"""What the NixOS module always gives."""


class ConfigurationTests(SynchronousTestCase):
    def load(self, text: str = "", *, file: str = "", suffix: str = "yaml", **env: str) -> Settings:
        """Read flags as one writes them, a file's text, and variables."""
        flags: dict[str, list[str]] = {}
        for word in text.split():
            name, equals, value = word.removeprefix("--").partition("=")
            flags.setdefault(name, []).append(value if equals else "true")
        if file:
            path = Path(self.mktemp()).absolute().with_suffix(f".{suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(file))
            flags["config"] = [str(path)]
        return load(flags, surroundings=surroundings(env))

    def assert_told(self, found: Settings, *words: Sequence[str]) -> None:
        """Each warning has the words that are given in its place."""
        self.assertEqual(len(found.warnings), len(words), found.warnings)
        for warning, expected in zip(found.warnings, words, strict=True):
            for word in expected:
                self.assertIn(word, warning)

    def test_the_nixos_module(self) -> None:
        """As its defaults are."""
        found = self.load(MODULE + f" --cache-storage-local=/var/lib/ncps {NIXOS_FLAG}")
        self.assertEqual(found.cache.upstream.public_keys, (NIXOS,))
        self.assert_told(found)

    def test_the_nixos_module_with_uploads(self) -> None:
        """CI copies to it: that is refused, and pulling works."""
        found = self.load(
            MODULE + " --cache-storage-local=/var/lib/ncps --cache-allow-put-verb"
            " --cache-allow-delete-verb --cache-secret-key-path=/run/credentials/key"
        )
        self.assert_told(found, ("put-verb", "every PUT is refused"), ("delete-verb", OFF))

    def test_the_nixos_module_with_postgresql_on_the_machine(self) -> None:
        """The user of the service is the user of the database, by the socket."""
        found = self.load(
            MODULE.replace("sqlite:/var/lib/ncps/db/db.sqlite", "postgresql:///ncps")
            + " --cache-storage-local=/data/ncps --cache-max-size=100G"
            " --cache-lru-schedule=@daily --cache-lru-schedule-timezone=Local"
        )
        url = found.cache.database_url
        self.assertEqual((url.host, url.user, url.database), ("", "", "ncps"))
        self.assert_told(found)

    def test_the_nixos_module_with_a_bucket(self) -> None:
        """Its secrets are files."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        for name in ("id", "key"):
            (directory / name).write_text(f"{name}\n")
        found = self.load(
            MODULE + " --cache-storage-s3-bucket=ncps --cache-storage-s3-endpoint=http://minio:9000"
            f" --cache-storage-s3-access-key-id-file={directory}/id --prometheus-enabled"
            f" --cache-storage-s3-secret-access-key-file={directory}/key"
            " --cache-storage-s3-force-path-style --cache-storage-s3-region=us-east-1"
        )
        s3 = found.cache.storage.s3
        self.assertEqual((s3.access_key_id, s3.secret_access_key), ("id", "key"))
        self.assert_told(found)

    def test_the_chart_with_several_replicas(self) -> None:
        """PostgreSQL with parameters, a bucket, Redis; chunks and staging, which it demands."""
        found = self.load(
            file="""\
            cache:
              hostname: ncps.example.com
              allow-put-verb: true
              storage:
                s3: {bucket: ncps, endpoint: "https://s3.example.com", region: eu,
                     force-path-style: true, access-key-id: id, secret-access-key: key}
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
        )
        self.assertEqual(found.cache.database.connect_timeout_s, 10.0)
        self.assertEqual(found.cache.lock.backend, "redis")
        self.assert_told(
            found,
            ("allow-put-verb", OFF),
            ("cdc.enabled", "stored whole"),
            ("inflight-staging.enabled", OFF),
            ("lock-download-ttl 5m", "taken as 30s"),
        )

    def test_a_compose_file(self) -> None:
        """It has nothing but variables, and one in the singular."""
        found = self.load(
            CACHE_HOSTNAME="ncps",
            CACHE_DATABASE_URL="mysql://ncps:pw@mariadb:3306/ncps?parseTime=true&timeout=10s",
            CACHE_STORAGE_LOCAL="/storage",
            CACHE_TEMP_PATH="/storage/tmp",
            CACHE_UPSTREAM_URL="https://cache.nixos.org,https://nix-community.cachix.org",
            CACHE_UPSTREAM_PUBLIC_KEYS=f"{NIXOS},{COMMUNITY[:-1]}",
            CACHE_MAX_SIZE="50GiB",
            CACHE_LRU_SCHEDULE="0 3 * * *",
            CACHE_LRU_SCHEDULE_TZ="Europe/Berlin",
            ANALYTICS_REPORTING_ENABLED="false",
            LOG_LEVEL="debug",
            PATH="/bin",
            TZ="Europe/Berlin",
        )
        self.assertEqual(found.cache.max_size_bytes, 50 << 30)
        self.assertEqual(found.cache.upstream.public_keys, (NIXOS, COMMUNITY))
        self.assertEqual(found.cache.database.connect_timeout_s, 10.0)
        self.assert_told(found, ("CACHE_UPSTREAM_URL ", "CACHE_UPSTREAM_URLS"))

    def test_a_command_of_docker(self) -> None:
        """With Nix's own parameters on an upstream, and names of old."""
        found = self.load(
            "--cache-hostname=nas --cache-data-path=/storage --cache-database-url=sqlite:/storage/d"
            " --upstream-cache=https://cache.nixos.org?trusted=true&want-mass-query=true"
            f" --upstream-public-key={NIXOS}"
        )
        self.assert_told(
            found,
            ("cache-data-path",),
            ("upstream-cache",),
            ("public-key",),
            ("trusted",),
            ("mass",),
        )

    def test_a_file_after_documents_of_old(self) -> None:
        """They called a section `otel`, which the Go program passes over."""
        found = self.load(
            file="""\
            log: {level: info}
            otel: {enabled: true, grpc-url: "http://otel:4317"}
            server: {addr: ":8501"}
            cache:
              hostname: cache.example.com
              storage: {local: /var/lib/ncps}
              database-url: "postgresql:///ncps?host=/run/postgresql&user=ncps&port=5432"
              upstream: {urls: ["https://cache.nixos.org"]}
            """
        )
        self.assertEqual(found.cache.database_url.socket, "/run/postgresql")
        self.assert_told(found, ("otel", OFF, "opentelemetry"))

    def test_a_toml_file_behind_a_proxy(self) -> None:
        """Two databases of which one is a standby, and a profiler that is not ours."""
        found = self.load(
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
        )
        self.assertEqual(found.server.trusted_proxies, ("unix",))
        self.assertEqual(found.cache.database_url.others, (("db2", 0),))
        self.assert_told(found, ("pprof.addr", OFF))
