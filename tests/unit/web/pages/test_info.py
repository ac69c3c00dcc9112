"""The pages about the cache itself."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from ncps import __version__
from ncps.cache.answers import Readiness
from ncps.web.pages.info import written
from tests.fakes.cache import PUBLIC_KEY
from tests.unit.web.wire import Server


class InfoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()

    def test_index_names_the_cache(self) -> None:
        """`/` is JSON with the host name, the key and the version."""
        response = self.server.get("/")
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual(
            json.loads(response.body),
            {"hostname": "cache.example", "publicKey": PUBLIC_KEY, "version": __version__},
        )

    def test_json_has_no_blanks(self) -> None:
        """Scripts, and the tests of the NixOS module, search for `"hostname":"..."`."""
        expected = f'{{"hostname":"cache.example","publicKey":"{PUBLIC_KEY}","version":"'
        self.assertTrue(self.server.get("/").body.startswith(expected.encode()))
        self.assertEqual(
            self.server.get("/readyz").body, b'{"ready":true,"parts":{"database":"ok"}}\n'
        )

    def test_json_is_escaped_as_go_does(self) -> None:
        """Characters of HTML are escaped by number; other letters are not."""
        self.assertEqual(written("<\u00e9&\udc80>"), b'"\\u003c\xc3\xa9\\u0026\\ufffd\\u003e"\n')

    def test_cache_info_is_what_nix_reads(self) -> None:
        """`/nix-cache-info` has the three lines."""
        response = self.server.get("/nix-cache-info")
        self.assertEqual(response.headers["content-type"], "text/x-nix-cache-info")
        self.assertEqual(response.body, b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n")

    def test_public_key_is_plain(self) -> None:
        """`/pubkey` can be pasted into nix.conf."""
        self.assertEqual(self.server.get("/pubkey").body, PUBLIC_KEY.encode())

    def test_heartbeat_is_a_dot(self) -> None:
        """`/healthz` answers with a dot, and is not logged."""
        response = self.server.get("/healthz")
        self.assertEqual((response.status, response.body), (200, b"."))
        self.assertEqual(self.server.logged, [])

    def test_readiness_names_what_is_wrong(self) -> None:
        """`/readyz` says whether it is ready, and if not, why."""
        response = self.server.get("/readyz")
        self.assertEqual(response.status, 200)
        self.assertEqual(json.loads(response.body), {"ready": True, "parts": {"database": "ok"}})
        self.server.cache.state = Readiness(
            parts={"database": "locked", "upstreams": "ok"}, needed=frozenset({"database"})
        )
        response = self.server.get("/readyz")
        self.assertEqual(response.status, 503)
        self.assertEqual(
            json.loads(response.body),
            {"ready": False, "parts": {"database": "locked", "upstreams": "ok"}},
        )

    def test_readiness_says_how_old_it_is(self) -> None:
        """An unchecked part has the age of its last check."""
        self.server.cache.state = Readiness(parts={"storage": "ok"}, ages={"storage": 3.14159})
        body = json.loads(self.server.get("/readyz").body)
        self.assertEqual(body["ages"], {"storage": 3.1})

    def test_part_that_is_not_needed_does_not_matter(self) -> None:
        """The cache stays ready if upstreams are away."""
        self.server.cache.state = Readiness(
            parts={"database": "ok", "upstreams": "all down"}, needed=frozenset({"database"})
        )
        self.assertEqual(self.server.get("/readyz").status, 200)

    def test_needed_part_that_was_not_looked_at_is_not_ready(self) -> None:
        """Without a check, a needed part is not ready."""
        self.server.cache.state = Readiness(parts={}, needed=frozenset({"database"}))
        self.assertEqual(self.server.get("/readyz").status, 503)


class MetricsPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()

    def test_metrics_are_text_for_prometheus(self) -> None:
        """A scrape gets every series in the classic format."""
        response = self.server.get("/metrics")
        self.assertTrue(response.headers["content-type"].startswith("text/plain; version=0.0.4"))
        self.assertIn(b"\nncps_http_connections 1.0\n", response.body)

    def test_metrics_are_openmetrics_when_asked(self) -> None:
        """A scraper that knows OpenMetrics gets it."""
        response = self.server.get(
            "/metrics", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.1"
        )
        self.assertTrue(response.headers["content-type"].startswith("application/openmetrics"))
        self.assertTrue(response.body.endswith(b"# EOF\n"))

    def test_nonsense_in_accept_gives_default(self) -> None:
        """An invalid header gives the default format."""
        for accept in ("text/plain;version=x", "\xff", "application/openmetrics-text;version=."):
            response = self.server.get("/metrics", accept=accept)
            self.assertEqual(response.status, 200, accept)


class WrittenTests(SynchronousTestCase):
    """The rules of JSON in the Go program (`json.Encoder` of Go 1.26)."""

    def check(self, value: object, expected: str) -> None:
        self.assertEqual(expected.encode() + b"\n", written(value))

    def test_a_list_is_never_null(self) -> None:
        """Without pins the list is empty, as in the Go program."""
        self.check([], "[]")

    def test_no_spaces_and_one_newline(self) -> None:
        """One line with a line end."""
        self.check(["a", "b"], '["a","b"]')
        self.check({"a": [1, None, True]}, '{"a":[1,null,true]}')

    def test_signs_of_html_and_of_scripts_are_escaped(self) -> None:
        """Four lower-case digits; quotes and backslashes as in JSON, no slash."""
        self.check(["<>&"], '["\\u003c\\u003e\\u0026"]')
        self.check(["\u2028\u2029"], '["\\u2028\\u2029"]')
        self.check(["\"\\/'"], '["\\"\\\\/\'"]')

    def test_control_characters_are_escaped(self) -> None:
        """Some have a letter of their own; DEL is not escaped."""
        self.check(["\b\f\n\r\t"], '["\\b\\f\\n\\r\\t"]')
        self.check(["\0\x1f"], '["\\u0000\\u001f"]')
        self.check(["\x7f"], '["\x7f"]')

    def test_other_letters_are_written_as_they_are(self) -> None:
        """In UTF-8, also beyond 16 bits; surrogates become U+FFFD."""
        self.check(["é☃😀"], '["é☃😀"]')
        self.check(["a\ud800b"], '["a\\ufffdb"]')
