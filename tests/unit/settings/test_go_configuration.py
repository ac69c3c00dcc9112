"""An existing configuration of the Go program, with all its keys."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.load import load
from ncps.settings.schema.tree import Settings
from tests.unit.settings.around import surroundings

# Sections that work today, and those without effect: everything but these sections' defaults.
_WORKS = """\
analytics:
  reporting:
    enabled: true
log:
  level: "debug"
opentelemetry:
  enabled: true
  grpc-url: "http://otel:4317"
prometheus:
  enabled: true
xz-binary-path: /usr/bin/xz
use-xz-binary: true
server:
  addr: ":8501"
cache:
  hostname: "cache.example.com"
  allow-put-verb: true
  allow-delete-verb: true
  get-token: ""
  database-url: "sqlite:/var/lib/ncps/db/db.sqlite"
  database:
    pool:
      max-open-conns: 25
      max-idle-conns: 5
  max-size: "100G"
  lru:
    schedule: "0 2 * * *"
    timezone: "Europe/Berlin"
  secret-key-path: "/run/keys/ncps"
  sign-narinfo: true
  require-trusted-signature: true
  trusted-upload-keys: ["a-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]
  temp-path: "/tmp"
  netrc-file: "/etc/ncps/netrc"
  storage:
    local: "/var/lib/ncps/storage"
    s3:
      bucket: ""
      endpoint: ""
      region: ""
      access-key-id: ""
      secret-access-key: ""
      force-path-style: false
  cdc:
    enabled: true
    min: 32768
    avg: 131072
    max: 524288
    lazy-chunking-enabled: true
    background-workers: 4
    delete-delay: "48h"
    lazy-recovery-schedule: "@every 10m"
    lazy-recovery-batch-size: 50
    lazy-cleanup-schedule: "@every 2h"
    chunk-wait-timeout: "1m"
  upstream:
    urls:
      - https://cache.nixos.org
      - https://nix-community.cachix.org?priority=41
    public-keys:
      - cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=
      - nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs=
    dialer-timeout: "2s"
    response-header-timeout: "4s"
  redis:
    addrs: []
    username: ""
    password: ""
    db: 0
    use-tls: false
    pool-size: 20
  lock:
    backend: "local"
    redis:
      key-prefix: "mine:"
    download-lock-ttl: "10m"
    lru-lock-ttl: "1h"
    retry:
      max-attempts: 5
      initial-delay: "200ms"
      max-delay: "4s"
      jitter: false
    allow-degraded-mode: true
  download:
    poll-timeout: "1m"
  inflight-staging:
    enabled: false
    retention: "10m"
    part-size: 16777216
pprof:
  addr: ":6060"
"""
_IN_A_BUCKET = """\
cache:
  upstream: {urls: ["https://cache.nixos.org"]}
  storage:
    local: ""
    s3:
      bucket: "nix"
      endpoint: "https://s3.example.com"
      region: "eu"
      access-key-id: "name"
      secret-access-key: "hunter2"
      force-path-style: true
"""
_SCHEDULE = ("0 2 * * *", "Europe/Berlin")
_IGNORED = {
    "analytics.reporting.enabled",
    "xz-binary-path",
    "use-xz-binary",
    "cache.cdc.enabled",
    "pprof.addr",
    "cache.cdc.min",
    "cache.cdc.avg",
    "cache.cdc.max",
    "cache.cdc.lazy-chunking-enabled",
    "cache.cdc.background-workers",
    "cache.cdc.delete-delay",
    "cache.cdc.lazy-recovery-schedule",
    "cache.cdc.lazy-recovery-batch-size",
    "cache.cdc.lazy-cleanup-schedule",
    "cache.cdc.chunk-wait-timeout",
    "cache.redis.pool-size",
    "cache.lock.retry.max-attempts",
    "cache.inflight-staging.retention",
    "cache.inflight-staging.part-size",
}


def _keys(tree: object, prefix: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return {prefix.rstrip(".")}
    return set().union(*(_keys(value, f"{prefix}{name}.") for name, value in tree.items()))


class GoConfigurationTests(SynchronousTestCase):
    def load_text(self, text: str) -> Settings:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return load({"config": [str(path)]}, surroundings=surroundings())

    def test_an_existing_file_works_unchanged(self) -> None:
        """Every key is accepted; a key without effect causes one warning."""
        found = self.load_text(_WORKS)
        self.assertEqual(found.log.level, "debug")
        self.assertIs(found.prometheus.enabled, True)
        self.assertEqual(found.server.addr, (r"tcp:8501:interface=\:\:",))
        cache = found.cache
        self.assertEqual(cache.hostname, "cache.example.com")
        self.assertEqual(cache.database_url.path, Path("/var/lib/ncps/db/db.sqlite"))
        self.assertEqual(cache.secret_key_path, Path("/run/keys/ncps"))
        self.assertIs(cache.sign_narinfo, True)
        self.assertEqual(cache.temp_path, Path("/tmp"))
        self.assertEqual(cache.netrc_file, Path("/etc/ncps/netrc"))
        self.assertEqual(cache.storage.local, Path("/var/lib/ncps/storage"))
        self.assertEqual(
            [(upstream.url, upstream.priority) for upstream in cache.upstream.upstreams],
            [("https://cache.nixos.org", 40), ("https://nix-community.cachix.org", 41)],
        )
        self.assertEqual(len(cache.upstream.public_keys), 2)
        self.assertEqual(cache.download.poll_timeout_s, 60.0)
        self.assertEqual(cache.upstream.dialer_timeout_s, 2.0)
        self.assertEqual(cache.upstream.response_header_timeout_s, 4.0)
        self.assertEqual(cache.max_size_bytes, 100 * 2**30)
        self.assertEqual((cache.lru.schedule.cron, cache.lru.timezone), _SCHEDULE)
        lock = cache.lock
        self.assertEqual((lock.backend, lock.redis.key_prefix), ("local", "mine:"))
        self.assertEqual((lock.download_lock_ttl_s, lock.lru_lock_ttl_s), (600.0, 3600.0))
        self.assertEqual((lock.retry.initial_delay_s, lock.retry.max_delay_s), (0.2, 4.0))
        self.assertEqual((lock.retry.jitter, lock.allow_degraded_mode), (False, True))
        warned = [re.findall(r": key (\S+) has no effect", line) for line in found.warnings]
        self.assertEqual(sorted(key for keys in warned for key in keys), sorted(_IGNORED))

    def test_a_store_in_a_bucket_works_unchanged(self) -> None:
        """Settings of S3 mean the same as in the Go program."""
        found = self.load_text(_IN_A_BUCKET)
        self.assertIs(found.cache.storage.local, None)
        s3 = found.cache.storage.s3
        self.assertEqual(
            (s3.bucket, s3.endpoint, s3.region, s3.access_key_id, s3.secret_access_key),
            ("nix", "https://s3.example.com", "eu", "name", "hunter2"),
        )
        self.assertIs(s3.force_path_style, True)
        self.assertNotIn("hunter2", repr(found))
        self.assertEqual(found.cache.temp_path, Path("/state/spool"))
