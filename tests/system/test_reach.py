"""Upstreams on the internet that lead to internal addresses."""

from __future__ import annotations

from collections.abc import Sequence

from tests.e2e.daemon import Daemon
from tests.machines.outside import ADDRESS
from tests.system.faults import Redirect
from tests.system.origin import Origin
from tests.system.stage import Stage

SETTING = "cache-upstream-allow-internal-addresses"


class InsideTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.inside = self.origin()
        self.outside = Origin(host=ADDRESS)
        self.outside.start()
        self.addCleanup(self.outside.stop)

    def over(self, *upstreams: Origin, options: Sequence[str] = ()) -> Daemon:
        """Return a started daemon on a machine with an address of the internet."""
        daemon = self.make_daemon(*upstreams, options=options)
        daemon.program = ("-m", "tests.machines.outside")
        daemon.start()
        return daemon

    def test_redirect(self) -> None:
        """No internal server is asked, the upstream has failed, and the log says why."""
        path = self.cache.add()
        self.cache.mount(self.inside)
        self.cache.mount(self.outside)
        for host in ("127.0.0.1", "localhost"):
            where = f"http://{host}:{self.inside.port}"
            self.outside.serve(f"/{path.digest}.narinfo", b"", Redirect(f"{where}/x"))
            daemon = self.over(self.outside)
            self.assertEqual(503, self.narinfo(daemon, path).status)
            self.wait_for_log(daemon, f"a redirect to {host} leads to 127.0.0.1", SETTING)
            text = self.ask(daemon, "/metrics").body.decode()
            self.assertRegex(text, r'ncps_upstream_errors_total{[^}]*kind="status"[^}]*} 1\.0')
        self.assertEqual([], self.inside.log)

    def test_url_of_a_narinfo(self) -> None:
        """ncps fetches the NAR from another upstream."""
        path = self.cache.add()
        url = f"{self.inside.url}/secret/{path.url}"
        self.cache.mount(self.outside)
        self.outside.serve(f"/{path.digest}.narinfo", path.narinfo(URL=url))
        daemon = self.over(self.outside)
        self.assertIn(self.nar(daemon, path).status, (502, 503))
        self.wait_for_log(daemon, "127.0.0.1 leads to 127.0.0.1, an internal address", SETTING)
        self.assertEqual([], self.inside.log)

    def test_upstream_that_is_inside(self) -> None:
        """An internal upstream may lead to any address, and with the setting so may all others."""
        path = self.cache.add()
        self.cache.mount(self.inside)
        there = self.mounted()
        for upstream, options in ((there, ()), (self.outside, (f"--{SETTING}",))):
            self.cache.mount(upstream)
            upstream.serve(path.nar_target, b"", Redirect(self.inside.url + path.nar_target))
            self.assert_served(self.over(upstream, options=options), path)
        self.assertEqual(2, self.inside.gets(path.nar_target))
