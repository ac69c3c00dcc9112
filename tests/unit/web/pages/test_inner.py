"""The pages with which workers ask each other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Snapshot
from ncps.web.answer import tell
from ncps.web.pages.inner import inner_site
from ncps.web.request import NcpsRequest
from tests.unit.web.wire import Client, Response, Server

NAR = f"{'1' * 52}.nar.xz"


class _Peers:
    def render(self, request: NcpsRequest, key: NarKey) -> int:
        tell(request, 200, key.file_name)
        return 1


class InnerSiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.site = inner_site(Server().clock, lambda: Snapshot.of(self.metrics.registry), _Peers())

    def get(self, path: str) -> Response:
        client = Client(self.site.buildProtocol(None))
        client.ask(path)
        response = client.response()
        client.leave()
        return response

    def test_figures_can_be_read_again(self) -> None:
        """The metrics of a worker are those of its registry."""
        self.metrics.downloads("failed").inc(3)
        found = Snapshot.read(self.get("/figures").body)
        self.assertEqual(Snapshot.of(self.metrics.registry), found)

    def test_nars_on_their_way_are_for_peers(self) -> None:
        """The same page answers replicas and siblings."""
        self.assertIn(NAR.encode(), self.get(f"/cluster/nar/{NAR}").body)

    def test_there_is_nothing_for_clients(self) -> None:
        """Narinfos, NARs and pages for clients are not here."""
        for path in ("/", f"/{'a' * 32}.narinfo", f"/nar/{NAR}", "/metrics", "/figures/x"):
            self.assertEqual(404, self.get(path).status, path)
