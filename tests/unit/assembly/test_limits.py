"""Limits reach the parts that apply them, under the names of their settings."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.assembly.access import access_control
from ncps.assembly.edge import site
from ncps.assembly.fetching import Upstreaming
from ncps.assembly.names import HostNames
from ncps.assembly.parts import Foundation
from ncps.assembly.role import Alone
from ncps.assembly.world import admission
from ncps.cache.cluster import NO_PEERS
from ncps.codec.ratio import USUAL
from ncps.errors import Busy
from ncps.nix.narinfo import MAX_SIZE
from ncps.observe.metrics import LIMITS, Metrics
from ncps.settings.schema.server import ServerSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.settings.table import by_flag
from ncps.upstream.remote import AnswerLimits, RemoteCache
from tests.fakes.cache import StubCache, StubRealisations
from tests.fakes.threads import InlineThreads
from tests.fakes.tokens import MemoryTokens
from tests.fakes.uploads import StubUploads
from tests.fakes.wire import Wire
from tests.structure.source import modules
from tests.unit.settings.around import load_with, problems_of


class LimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def base(self, reactor: Any, settings: Settings) -> Foundation:
        """Return a foundation whose threads run immediately, and whose disk is full."""
        stores = SimpleNamespace(room=SimpleNamespace(spare=lambda: 0))
        parts: Any = SimpleNamespace(workers=InlineThreads(), stores=stores, tokens=MemoryTokens())
        return Foundation(
            reactor=reactor,
            settings=settings,
            parts=parts,
            metrics=self.metrics,
            role=Alone(reactor),
        )

    def reached(self, limit: str) -> float | None:
        return self.metrics.registry.get_sample_value("ncps_limit_reached_total", {"limit": limit})

    def test_each_limit_is_called_by_its_setting(self) -> None:
        """The metric names the setting that an operator can change."""
        packages = ("aio", "auth", "web", "upstream", "cache.nar", "cache.write", "cache.extras")
        reported = {
            node.value
            for module in modules()
            if module.name.startswith(tuple(f"ncps.{package}." for package in packages))
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and node.value in by_flag()
        }
        no_limits = {"cache-upstream-allow-internal-addresses", "cache-get-token"}
        no_limits |= {f"server-tls-{name}-file" for name in ("cert", "key", "client-ca")}
        self.assertEqual(set(LIMITS), reported - no_limits)
        self.assertEqual({self.reached(limit) for limit in LIMITS}, {0})

    def test_limits_of_clients_are_those_of_the_settings(self) -> None:
        """Every number reaches the web layer; defaults agree."""
        settings = load_with(
            {
                "server-min-send-rate": "2K",
                "server-min-send-window": "7m",
                "server-max-connections-per-address": "17",
                "server-max-requests": "18",
                "server-max-header-size": "19K",
                "server-max-headers": "20",
            }
        )
        clock = Clock()
        cache: Any = StubCache()  # no page is asked
        cache.realisations = StubRealisations()
        base = self.base(clock, settings)
        access = access_control(base, Tasks(clock))
        closures: Any = SimpleNamespace(pinning=None, removing=None)
        made = site(base, cache, NO_PEERS, access, closures, uploads=StubUploads()).limits
        self.assertEqual(
            (
                made.min_send_rate_bytes,
                made.min_send_window_s,
                made.max_connections_per_address,
                made.max_requests,
            ),
            (2048, 420.0, 17, 18),
        )
        self.assertEqual((made.max_header_size_bytes, made.max_headers), (19 * 1024, 20))
        self.assertEqual(load_with().server, ServerSettings())

    def test_bounds_of_upstreams_are_those_of_the_settings(self) -> None:
        """Every number reaches the clients of upstreams; defaults agree."""
        usual, plain = load_with().cache, UpstreamsSettings()
        self.assertEqual(evolve(usual.upstream, upstreams=(), public_keys=()), plain)
        self.assertEqual(usual.narinfo_max_size_bytes, MAX_SIZE)
        self.assertEqual(usual.max_decompression_ratio, USUAL)
        settings = load_with(
            {
                "cache-upstream-url": "http://a.example",
                "cache-upstream-max-connections": "11",
                "cache-upstream-max-queries": "12",
                "cache-upstream-max-queue": "13",
                "cache-upstream-queue-timeout": "14s",
                "cache-upstream-max-redirects": "0",
                "cache-upstream-max-header-size": "5K",
                "cache-narinfo-max-size": "16K",
                "cache-max-decompression-ratio": "17",
            }
        )
        expected = UpstreamsSettings(
            max_connections=11,
            max_queries=12,
            max_queue=13,
            queue_timeout_s=14.0,
            max_redirects=0,
            max_header_size_bytes=5 * 1024,
        )
        made = self.upstreaming(settings)
        self.assertEqual(evolve(made.clients[0].bounds, upstreams=(), public_keys=()), expected)
        (candidate,) = made.upstreams.candidates
        assert isinstance(candidate.upstream, RemoteCache)
        self.assertEqual(candidate.upstream.limits, AnswerLimits(narinfo_size=16384, max_ratio=17))

    def upstreaming(self, settings: Settings) -> Upstreaming:
        wire = Wire()
        return Upstreaming(self.base(wire, settings), Tasks(wire), HostNames(wire, settings))

    def test_pace_of_upstreams_is_that_of_the_settings(self) -> None:
        """Rate and window reach the code that measures bodies."""
        settings = load_with(
            {
                "cache-upstream-min-receive-rate": "7K",
                "cache-upstream-min-receive-window": "1m",
            }
        )
        made = self.upstreaming(settings).upstreams.pace
        self.assertEqual((made.min_receive_rate_bytes, made.min_receive_window_s), (7168, 60.0))

    def test_narinfos_are_never_larger_than_the_parser_reads(self) -> None:
        """A larger setting is an error at the start."""
        (problem,) = problems_of({"cache-narinfo-max-size": f"{MAX_SIZE + 1}B"})
        self.assertIn("should be between 4K and 4M", problem)

    def test_admission_is_counted_and_shown(self) -> None:
        """A refused download is counted; the bytes in flight are a gauge."""
        settings = load_with({"cache-download-max-count": "1"})
        made = admission(self.base(Clock(), settings))
        ticket = made.begin()
        self.assertRaises(Busy, made.begin)
        self.assertEqual(self.reached("cache-download-max-count"), 1)
        self.assertNotEqual(ticket.room(1), "")
        self.assertEqual(self.reached("cache-storage-min-free"), 1)
        self.assertEqual(self.metrics.registry.get_sample_value("ncps_spool_bytes"), 0)
