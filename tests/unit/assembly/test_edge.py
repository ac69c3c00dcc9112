"""The routes of the whole program."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.assembly.access import access_control
from ncps.assembly.edge import bulk_routes, extra_routes, site
from ncps.assembly.parts import Foundation
from ncps.assembly.role import Alone
from ncps.cache.cluster import NO_PEERS
from ncps.observe.metrics import Metrics
from ncps.web.routes import Routes
from tests.fakes.bulk import StubBulk
from tests.fakes.cache import StubCache, StubRealisations
from tests.fakes.extras import StubExtras
from tests.fakes.threads import InlineThreads
from tests.fakes.tokens import MemoryTokens
from tests.fakes.uploads import StubUploads
from tests.fakes.verbs import StubClosures
from tests.unit.settings.around import load_with

UPLOADS = {
    "/build-trace-v2/{drv}/{output}",
    "/debuginfo/{id}",
    "/log/{drv}",
    "/nar/{file}",
    "/realisations/{id}",
    "/{hash}.ls",
    "/{hash}.narinfo",
}


class RoutesTests(SynchronousTestCase):
    def labels(self, given: Mapping[str, str]) -> tuple[set[str], set[str]]:
        """Return the labels of the routes that accept uploads: at the root, and below `/upload`."""
        clock = Clock()
        parts: Any = SimpleNamespace(tokens=MemoryTokens(), workers=InlineThreads())
        base = Foundation(
            reactor=clock,
            settings=load_with(given),
            parts=parts,
            metrics=Metrics(),
            role=Alone(clock),
        )
        cache: Any = StubCache()
        cache.realisations = StubRealisations()
        closures: Any = SimpleNamespace(pinning=StubClosures(), removing=StubClosures())
        more = [*bulk_routes(base, StubBulk()), *extra_routes(base, StubExtras())]
        access = access_control(base, Tasks(clock))
        made = site(base, cache, NO_PEERS, access, closures, uploads=StubUploads(), more=more)
        assert isinstance(made.resource, Routes)
        table = made.resource.table
        return (
            {route.label for route in table if b"PUT" in route.verbs},
            {route.label for route in table if b"PUT" in route.uploads},
        )

    def test_uploads_at_the_root_need_a_setting(self) -> None:
        """This is for all kinds; below `/upload` they need no setting."""
        self.assertEqual((set(), UPLOADS), self.labels({}))
        self.assertEqual((set(), UPLOADS), self.labels({"cache-allow-put-verb": "true"}))
        at_root = {"cache-upload-at-root": "true"}
        self.assertEqual((UPLOADS, UPLOADS), self.labels(at_root))
