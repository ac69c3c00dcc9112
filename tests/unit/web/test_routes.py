"""The path grammar: which requests are answered, and which reach the core."""

from __future__ import annotations

import re
import string

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from zope.interface.verify import verifyObject

from ncps.cache.answers import Absent, Outcome, ServedNarInfo
from ncps.nix.narurl import NarKey
from ncps.peering import trail
from ncps.peering.trail import MAX_NAMES, NO_TRAIL, Trail
from tests.fakes.cache import served_narinfo
from tests.unit.web.wire import Response, Server

DIGEST = "0123456789abcdfghijklmnpqrsvwxyz"
NAME = (DIGEST * 2)[:52]
HEX = "0123456789abcdef" * 4

# Written again, on purpose, from the specification and not from the code.
VALID = re.compile(
    rb"/[0-9a-df-np-sv-z]{32}\.narinfo"
    rb"|/nar/([0-9a-df-np-sv-z]{52}|[0-9a-f]{64})\.nar(\.(none|xz|bz2|zst|br|lz4|lzip))?"
    rb"|/nar/[0-9a-df-np-sv-z]{32}([-_]([0-9a-df-np-sv-z]{52}|[0-9a-f]{64}))?\.nar(\.[a-z0-9]{1,16})?"
)

ODD_PATHS = (
    f"/{DIGEST[:31]}.narinfo",
    f"/{DIGEST}0.narinfo",
    f"/{DIGEST.upper()}.narinfo",
    *(f"/{DIGEST[:31]}{letter}.narinfo" for letter in "eout"),
    f"/{DIGEST}.narinfo/",
    f"//{DIGEST}.narinfo",
    f"/./{DIGEST}.narinfo",
    f"/x/../{DIGEST}.narinfo",
    f"/%2f{DIGEST}.narinfo",
    f"/{DIGEST}%2enarinfo",
    f"/{DIGEST}.narinfo%00",
    f"/{DIGEST[:31]}%30.narinfo",
    f"/{DIGEST}.NARINFO",
    f"/{DIGEST}",
    f"/{DIGEST}.ls",
    "/nar/",
    "/nar",
    "/nar/.nar",
    "/nar/../nix-cache-info",
    "/nar/..%2f..%2fetc%2fpasswd",
    f"/nar/{NAME[:51]}.nar",
    f"/nar/{NAME}0.nar",
    f"/nar/{HEX.upper()}.nar",
    f"/nar/{DIGEST}+{NAME}.nar",
    f"/nar/{DIGEST}-{NAME}0.nar",
    f"/nar/{DIGEST}-.nar",
    f"/nar/{DIGEST[1:]}.nar",
    f"/nar/{DIGEST}-{DIGEST}.nar",
    f"/cluster/nar/{DIGEST}.nar",
    f"/nar/{NAME}",
    f"/nar/{NAME}.narinfo",
    f"/nar/{NAME}.nar/",
    f"/nar/{NAME}.nar.xz/",
    f"/nar//{NAME}.nar.xz",
    f"/nar/{NAME}.nar.xz.xz",
    f"/nar/{NAME}.nar.x%78",
    f"/nar/{NAME}%00.nar",
    "/nix-cache-info/",
    "/NIX-CACHE-INFO",
    "/pubkey.txt",
    "/healthz/x",
    f"/upload/{DIGEST}.narinfo",
    "/" + "a" * 10_000,
    "/nar/" + "0" * 10_000 + ".nar",
    "*",
    "cache.example:80",
)


class RoutesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.cache = self.server.cache

    def test_routes_are_resource(self) -> None:
        """Twisted can use the routes as the root of a site."""
        self.assertTrue(verifyObject(IResource, self.server.site.resource))

    def test_every_fixed_path_answers_get_and_head(self) -> None:
        """HEAD works like GET, with the same headers."""
        for path in ("/", "/nix-cache-info", "/pubkey", "/healthz", "/readyz"):
            get, head = self.server.get(path), self.server.get(path, b"HEAD")
            self.assertEqual(get.status, 200)
            self.assertEqual((head.status, head.headers), (get.status, get.headers))
            self.assertEqual(int(get.headers["content-length"]), len(get.body))
        self.assertEqual(self.server.get("/metrics", b"HEAD").status, 200)
        self.assertEqual(self.cache.asked, [])

    def test_head_sends_no_body(self) -> None:
        """No byte follows the head of an answer to HEAD."""
        client = self.server.connect()
        client.ask("/pubkey", b"HEAD")
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))

    def test_odd_paths_are_404_and_reach_nothing(self) -> None:
        """Malformed names, traversals and tricks of encoding are 404."""
        for path in ODD_PATHS:
            response = self.server.get(path)
            self.assertEqual((response.status, response.whole), (404, True), path)
            self.assertEqual(response.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(self.cache.asked, [])

    def test_nul_in_path_is_refused(self) -> None:
        """A NUL byte is never part of a request."""
        client = self.server.connect()
        client.ask(f"/{DIGEST}.narinfo".encode() + b"\0")
        self.assertTrue(client.value().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(client.disconnecting)
        client.leave()
        self.assertEqual(self.cache.asked, [])

    def test_unknown_extension_is_400(self) -> None:
        """An unknown compression is the client's mistake, not an absence."""
        for extension in ("gz", "XZ", "zstd", "bzip2", "0", ""):
            response = self.server.get(f"/nar/{NAME}.nar.{extension}")
            self.assertEqual(response.status, 400, extension)
        self.assertEqual(self.cache.asked, [])

    def test_every_form_of_nar_name_reaches_core(self) -> None:
        """Both spellings of the hash and every extension are valid."""
        for name in (NAME, HEX):
            for extension in ("", "xz", "bz2", "zst", "br", "lz4", "lzip"):
                self.cache.asked.clear()
                suffix = f".{extension}" if extension else ""
                self.assertEqual(self.server.get(f"/nar/{name}.nar{suffix}").status, 404)
                self.assertEqual(self.cache.asked, [NarKey(name, extension)])

    def test_names_of_other_servers_are_asked_for(self) -> None:
        """The store path in the name finds the NAR's own name."""
        key = NarKey(NAME, "")
        self.cache.add_nar(key, b"abc", size=3)
        for name in (f"{DIGEST}-{NAME}.nar", f"{DIGEST}_{HEX}.nar.xz", f"{DIGEST}.nar"):
            self.cache.asked.clear()
            response = self.server.get(f"/nar/{name}")
            self.assertEqual((response.status, response.headers["x-cache"]), (404, "negative"))
            self.assertEqual(self.cache.asked, [name])
            self.cache.old_names[name] = key
            response = self.server.get(f"/nar/{name}", range="bytes=1-")
            self.assertEqual((response.status, response.body), (206, b"bc"))
            self.assertEqual(response.headers["etag"], f'"{key.file_name}"')
            self.assertEqual(self.cache.asked, [name, name, key])
            self.assertEqual(self.server.get(f"/nar/{name}", b"HEAD").status, 200)
        self.assertEqual(self.server.logged[-1].route, "/nar/{file}")

    def test_absolute_form_is_understood(self) -> None:
        """A target as in a request to a proxy names the same path."""
        self.cache.narinfos[DIGEST] = served_narinfo(text=b"x\n", outcome=Outcome.HIT)
        response = self.server.get(f"http://cache.example:8501/{DIGEST}.narinfo")
        self.assertEqual(response.status, 200)
        self.assertEqual(self.server.get("http://cache.example").status, 404)

    def test_wrong_verbs_are_405_with_allow(self) -> None:
        """The answer names the verbs that the path has."""
        for path in ("/", "/nix-cache-info", f"/{DIGEST}.narinfo", f"/nar/{NAME}.nar.xz"):
            for method in (b"PUT", b"DELETE", b"POST", b"PATCH", b"get", b"B'OGUS"):
                response = self.server.get(path, method)
                self.assertEqual(response.status, 405, (path, method))
                self.assertEqual(response.headers["allow"], "GET, HEAD, OPTIONS")
        self.assertEqual(self.cache.asked, [])

    def test_uploads_beside_upload_are_told_where_they_go(self) -> None:
        """Users of `nix copy` often forget /upload."""
        for path in (f"/{'0' * 32}.narinfo", f"/nar/{'0' * 52}.nar.xz"):
            response = self.server.get(path, b"PUT")
            self.assertEqual(405, response.status)
            self.assertIn(b"nix copy --to http://HOST/upload", response.body)
        for path, method in (("/pubkey", b"PUT"), (f"/{'0' * 32}.narinfo", b"PATCH")):
            self.assertNotIn(b"/upload", self.server.get(path, method).body)

    def test_options_says_which_methods_there_are(self) -> None:
        """204 without a body, for every path and for the whole server."""
        for path in ("/", "/readyz", f"/{DIGEST}.narinfo", f"/nar/{NAME}.nar.xz", "*"):
            client = self.server.connect()
            for _ in range(2):  # on one connection, so that a stray body would be seen
                client.ask(path, b"OPTIONS")
                response = client.response()
                self.assertEqual(
                    (response.status, response.headers["allow"]), (204, "GET, HEAD, OPTIONS"), path
                )
                self.assertNotIn("transfer-encoding", response.headers)
            self.assertEqual(client.value(), b"")
        self.assertEqual(self.server.get("/upload/x", b"OPTIONS").status, 404)
        self.assertEqual(self.cache.asked, [])

    def test_wrong_verb_on_unknown_path_is_404(self) -> None:
        """An unknown path has no verbs."""
        self.assertEqual(self.server.get("/upload/x", b"PUT").status, 404)

    @given(
        st.one_of(
            st.binary(max_size=80).map(lambda tail: b"/" + tail),
            st.text(string.printable, max_size=80).map(lambda tail: f"/nar/{tail}".encode()),
            st.from_regex(
                rb"/(nar/)?[0-9a-z%./_-]{0,66}\.nar(info)?(\.[a-z0-9%]{0,5})?", fullmatch=True
            ),
            st.from_regex(VALID, fullmatch=True),
        )
    )
    @example(f"/{DIGEST}.narinfo".encode())
    def test_any_path_is_answered_and_only_valid_ones_reach_core(self, path: bytes) -> None:
        """No bytes break the server."""
        self.cache.asked.clear()
        client = self.server.connect()
        client.ask(path)
        status = int(client.value()[9:12])
        client.leave()
        self.assertIn(status, {200, 400, 404})
        is_valid = VALID.fullmatch(path.partition(b"?")[0]) is not None
        self.assertEqual(bool(self.cache.asked), is_valid and b"\0" not in path)


class LoopTests(SynchronousTestCase):
    """An upstream that leads back to this cache."""

    def setUp(self) -> None:
        self.server = Server()
        self.trails: list[Trail] = []
        cache, find = self.server.cache, self.server.cache.narinfo

        async def narinfo(digest: str, *, leads_on: bool = False) -> ServedNarInfo:
            self.trails.append(trail.current())
            return await find(digest)

        async def key_of(digest: str, file_name: str) -> NarKey:
            self.trails.append(trail.current())
            raise Absent(file_name, outcome=Outcome.RING)

        self.patch(cache, "narinfo", narinfo)
        self.patch(cache, "key_of", key_of)

    def ask(self, via: str) -> Response:
        return self.server.get(f"/{DIGEST}.narinfo", via=via)

    def test_the_core_knows_through_whom_a_question_has_come(self) -> None:
        """The core gets the trail; other requests have none."""
        self.ask("1.1 proxy, 1.1 ncps-4567")
        self.ask("1.1 ncps-0123, 1.1 ncps-4567")
        self.server.get(f"/{DIGEST}.narinfo")
        names = ("ncps-0123", "ncps-4567")
        self.assertEqual([Trail(names[1:]), Trail(names, True), NO_TRAIL], self.trails)

    def test_so_it_does_for_the_names_of_other_servers(self) -> None:
        """Their paths' narinfos are looked up with the trail."""
        self.server.get(f"/nar/{DIGEST}.nar", via="1.1 ncps-0123, 1.1 ncps-4567")
        self.assertEqual([Trail(("ncps-0123", "ncps-4567"), True)], self.trails)

    def test_absence_in_a_ring_says_so(self) -> None:
        """The answer says that no upstream was asked."""
        self.server.cache.narinfos[DIGEST] = Absent("round", outcome=Outcome.RING)
        response = self.ask("1.1 ncps-0123")
        self.assertEqual((404, "ring"), (response.status, response.headers["x-cache"]))
        self.assertEqual("no-store", response.headers["cache-control"])

    def test_a_loop_without_end_is_cut(self) -> None:
        """A request through very many caches goes to no upstream."""
        via = ", ".join(f"1.1 ncps-{number:012x}" for number in range(MAX_NAMES + 1))
        response = self.ask(via)
        self.assertEqual((404, "ring"), (response.status, response.headers["x-cache"]))
        self.assertEqual([], self.server.cache.asked)

    def test_an_upstream_that_is_this_very_cache_is_told_once(self) -> None:
        """Only the first request is logged; a longer ring is not."""
        with capturedLogs() as seen:
            self.ask("1.1 ncps-0123, 1.1 ncps-4567")
            self.assertEqual([], seen)
            for _ in range(3):
                self.ask("1.1 ncps-0123")
        self.assertEqual(1, len(seen))
