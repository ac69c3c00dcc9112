"""NARs over HTTP: framing, ranges and validators."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.narurl import NarKey
from ncps.web.clients import TrustedProxies
from ncps.web.pages import hot_nar
from tests.unit.web.wire import PEER, Server

KEY = NarKey("0" * 52, "xz")
PATH = f"/{KEY.url}"
ETAG = f'"{KEY.file_name}"'


def reference(data: bytes, header: str) -> tuple[int, bytes]:
    """Return the result of a simple range by slicing."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    if first and last and int(first) > int(last):
        return 200, data
    if not first:
        part = data[-int(last) :] if int(last) else b""
    elif last:
        part = data[int(first) : int(last) + 1]
    else:
        part = data[int(first) :]
    return (206, part) if part else (416, b"")


class NarTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.cache = self.server.cache

    def count(self, result: str, status: str, upstream: str = "") -> float | None:
        return self.server.sample(
            "ncps_nar_served_total", result=result, status=status, upstream_hostname=upstream
        )

    def test_nar_of_known_size_has_length_and_validators(self) -> None:
        """A client has all it needs to resume."""
        nar = self.cache.add_nar(KEY, b"abc", b"def", size=6)
        response = self.server.get(PATH)
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, b"abcdef")
        self.assertEqual(response.headers["content-length"], "6")
        self.assertEqual(response.headers["content-type"], "application/x-nix-nar")
        self.assertEqual(response.headers["accept-ranges"], "bytes")
        self.assertEqual(response.headers["etag"], ETAG)
        self.assertEqual(response.headers["x-cache"], "hit")
        self.assertIn("immutable", response.headers["cache-control"])
        self.assertRegex(response.headers["server-timing"], r"^total;dur=[\d.]+$")
        self.assertNotIn("content-encoding", response.headers)
        self.assertEqual(nar.closed, 1)
        self.assertEqual([body.closed for body in nar.bodies], [1])
        self.assertEqual(self.count("hit", "success"), 1)

    def test_times_of_a_large_nar_are_noted(self) -> None:
        """After a large answer the core learns how long its client has kept it waiting."""
        self.patch(hot_nar, "sending_times", lambda transport: (2.0, 1.5))
        self.cache.add_nar(KEY, bytes(hot_nar.NOTED), size=hot_nar.NOTED)
        self.server.get(PATH)
        self.assertEqual([(2.0, 1.5)], self.cache.sent)
        self.server.get(PATH, Range=f"bytes=1-{hot_nar.NOTED}")
        self.assertEqual([(2.0, 1.5)], self.cache.sent)

    def test_times_of_a_connection_are_noted_once(self) -> None:
        """The kernel counts from the start of a connection; each answer adds only its own times."""
        times = iter([(2.0, 1.5), (5.0, 1.75)])
        self.patch(hot_nar, "sending_times", lambda transport: next(times))
        client = self.server.connect()
        for byte in (b"a", b"b"):
            key = NarKey(byte.decode() * 52, "xz")
            self.cache.add_nar(key, byte * hot_nar.NOTED, size=hot_nar.NOTED)
            client.ask(f"/{key.url}")
            client.response()
        self.assertEqual([(2.0, 1.5), (3.0, 0.25)], self.cache.sent)

    def test_times_of_a_proxy_are_not_noted(self) -> None:
        """A trusted proxy reads at the pace of its clients' network, or faster than any client."""
        self.patch(hot_nar, "sending_times", lambda transport: (2.0, 1.5))
        self.server.site.proxies = TrustedProxies((PEER.host,))
        self.cache.add_nar(KEY, bytes(hot_nar.NOTED), size=hot_nar.NOTED)
        self.server.get(PATH)
        self.assertEqual([], self.cache.sent)

    def test_nar_of_unknown_size_is_chunked(self) -> None:
        """A NAR of unknown size is sent without waiting."""
        self.cache.add_nar(KEY, b"abc", b"def")
        response = self.server.get(PATH)
        self.assertEqual(response.headers["transfer-encoding"], "chunked")
        self.assertEqual((response.body, response.whole), (b"abcdef", True))

    def test_nar_of_unknown_size_waits_for_it_on_http_1_0(self) -> None:
        """HTTP/1.0 needs a length to show a cut."""
        self.cache.add_nar(KEY, b"abc", b"def")
        client = self.server.connect()
        client.ask(PATH, version=b"HTTP/1.0")
        response = client.response()
        self.assertEqual(response.headers["content-length"], "6")
        self.assertEqual(response.body, b"abcdef")
        self.assertTrue(client.disconnecting)

    def test_empty_nar_ends(self) -> None:
        """A file without bytes has an answer."""
        self.cache.add_nar(KEY, size=0)
        response = self.server.get(PATH)
        self.assertEqual((response.status, response.body, response.whole), (200, b"", True))

    def test_first_bytes_leave_before_last_arrive(self) -> None:
        """The client gets bytes while the NAR is arriving."""
        more: Deferred[None] = Deferred()
        self.cache.add_nar(KEY, b"abc", more, b"def", size=6)
        client = self.server.connect()
        client.ask(PATH)
        self.assertTrue(client.value().endswith(b"\r\n\r\nabc"))
        more.callback(None)
        self.assertEqual(client.response().body, b"abcdef")

    def test_the_time_it_took_is_in_server_timing(self) -> None:
        """The answer has its duration."""
        self.cache.add_nar(KEY, b"abc", size=3)
        self.assertEqual(self.server.get(PATH).headers["server-timing"], "total;dur=0.0")

    def test_nar_that_is_elsewhere_is_a_redirect(self) -> None:
        """GET is redirected, also with a range; HEAD is answered here."""
        nar = self.cache.add_nar(KEY, b"abcdef", size=6)
        nar.elsewhere = "https://s3.example/nix/x?X-Amz-Signature=1"
        for response in (self.server.get(PATH), self.server.get(PATH, range="bytes=2-")):
            self.assertEqual((response.status, response.body), (307, b""))
            self.assertEqual(response.headers["location"], nar.elsewhere)
            self.assertEqual(response.headers["cache-control"], "no-store")
            self.assertEqual(response.headers["x-cache"], "hit")
            self.assertNotIn("etag", response.headers)
            self.assertNotIn("content-range", response.headers)
        head = self.server.get(PATH, b"HEAD")
        self.assertEqual((head.status, head.headers["content-length"]), (200, "6"))
        self.assertNotIn("location", head.headers)
        self.assertEqual(self.server.get(PATH, if_none_match=ETAG).status, 304)
        self.assertEqual((nar.closed, nar.bodies), (2, []))
        self.assertEqual(self.count("hit", "success"), 2)

    def test_head_has_headers_of_get_and_no_body(self) -> None:
        """HEAD has the headers of GET."""
        nar = self.cache.add_nar(KEY, b"abcdef", size=6)
        get = self.server.get(PATH)
        head = self.server.get(PATH, b"HEAD", range="bytes=2-")
        self.assertEqual(head.status, 200)
        del head.headers["date"], get.headers["date"]  # a second may end between them
        self.assertEqual(head.headers, get.headers)
        self.assertEqual(len(nar.bodies), 1)

    def test_head_of_unknown_size_has_no_length(self) -> None:
        """HEAD does not download a NAR, and does not guess a length."""
        self.cache.add_nar(KEY, b"abcdef")
        client = self.server.connect()
        client.ask(PATH, b"HEAD")
        self.assertEqual(client.value().partition(b"\r\n\r\n")[2], b"")
        response = client.response(head_only=True)
        self.assertNotIn("content-length", response.headers)
        self.assertNotIn("transfer-encoding", response.headers)

    def test_head_of_absent_nar_is_404(self) -> None:
        """HEAD is 200 only if GET would be."""
        response = self.server.get(PATH, b"HEAD")
        self.assertEqual((response.status, response.body), (404, b""))
        self.assertEqual(response.headers["content-length"], "10")

    def test_absent_nar_is_404_without_validators(self) -> None:
        """A 404 has no entity tag."""
        response = self.server.get(PATH)
        self.assertEqual(response.status, 404)
        self.assertEqual(response.headers["x-cache"], "miss")
        self.assertEqual(response.headers["cache-control"], "no-store")
        self.assertNotIn("etag", response.headers)
        self.assertNotIn("accept-ranges", response.headers)
        self.assertEqual(self.count("miss", "error"), 1)

    def test_range_gives_part(self) -> None:
        """A client that was cut off gets the rest."""
        self.cache.add_nar(KEY, b"abc", b"def", size=6)
        response = self.server.get(PATH, range="bytes=2-")
        self.assertEqual((response.status, response.body), (206, b"cdef"))
        self.assertEqual(response.headers["content-range"], "bytes 2-5/6")
        self.assertEqual(response.headers["content-length"], "4")
        self.assertEqual(response.headers["accept-ranges"], "bytes")
        self.assertEqual(response.headers["etag"], ETAG)

    def test_range_of_unknown_size_waits_for_it(self) -> None:
        """A client can resume a NAR whose size is known only at its end."""
        self.cache.add_nar(KEY, b"abc", b"def")
        response = self.server.get(PATH, range="bytes=4-")
        self.assertEqual((response.status, response.body), (206, b"ef"))
        self.assertEqual(response.headers["content-range"], "bytes 4-5/6")

    def test_range_outside_of_a_doubtful_size_waits_for_the_true_one(self) -> None:
        """A wrong size of an upstream gives no 416."""
        for start in (4, 5):
            self.cache.add_nar(KEY, b"abc", b"def", size=4)
            response = self.server.get(PATH, range=f"bytes={start}-")
            self.assertEqual((response.status, response.body), (206, b"abcdef"[start:]))
            self.assertEqual(response.headers["content-range"], f"bytes {start}-5/6")

    def test_range_outside_is_416(self) -> None:
        """A range after the end is refused with the size."""
        nar = self.cache.add_nar(KEY, b"abcdef", size=6)
        response = self.server.get(PATH, range="bytes=6-")
        self.assertEqual(response.status, 416)
        self.assertEqual(response.headers["content-range"], "bytes */6")
        self.assertEqual(nar.closed, 1)
        self.assertEqual(nar.bodies, [])

    def test_ranges_not_obeyed_give_whole(self) -> None:
        """Several ranges, other units and bad syntax are ignored."""
        self.cache.add_nar(KEY, b"abcdef", size=6)
        for header in ("bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=5-2", "bytes=-"):
            response = self.server.get(PATH, range=header)
            self.assertEqual((response.status, response.body), (200, b"abcdef"), header)
            self.assertNotIn("content-range", response.headers)

    def test_if_range_decides_whether_range_counts(self) -> None:
        """Parts of different files are never mixed."""
        self.cache.add_nar(KEY, b"abcdef", size=6)
        for if_range, status in ((ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200)):
            response = self.server.get(PATH, range="bytes=2-3", if_range=if_range)
            self.assertEqual(response.status, status, if_range)

    def test_if_none_match_gives_304_while_nar_can_be_had(self) -> None:
        """A proxy learns that its bytes are valid."""
        nar = self.cache.add_nar(KEY, b"abcdef", size=6)
        for method in (b"GET", b"HEAD"):
            client = self.server.connect()
            client.ask(PATH, method, if_none_match=ETAG)
            self.assertTrue(client.value().endswith(b"\r\n\r\n"))
            response = client.response(head_only=True)
            self.assertEqual(response.status, 304)
            self.assertEqual(response.headers["etag"], ETAG)
            self.assertNotIn("content-length", response.headers)
        self.assertEqual(nar.bodies, [])
        self.cache.nars.clear()
        self.assertEqual(self.server.get(PATH, if_none_match=ETAG).status, 404)

    def test_none_extension_is_same_nar(self) -> None:
        """`.nar.none` means the same as `.nar`."""
        key = NarKey("1" * 64, "")
        self.cache.add_nar(key, b"abc", size=3)
        for path in (f"/nar/{'1' * 64}.nar", f"/nar/{'1' * 64}.nar.none"):
            self.assertEqual(self.server.get(path).headers["etag"], f'"{"1" * 64}.nar"')

    def test_query_string_is_ignored(self) -> None:
        """A query string does not change the NAR."""
        self.cache.add_nar(KEY, b"abc", size=3)
        self.assertEqual(self.server.get(PATH + "?a=b&c").body, b"abc")
        self.assertEqual(self.cache.asked, [KEY])

    def test_accept_encoding_is_ignored(self) -> None:
        """Bytes are sent in the compression of the name."""
        self.cache.add_nar(KEY, b"abc", size=3)
        response = self.server.get(PATH, accept_encoding="zstd, br, gzip")
        self.assertNotIn("content-encoding", response.headers)
        self.assertEqual(response.body, b"abc")

    @given(
        st.binary(max_size=40),
        st.lists(st.integers(1, 7), max_size=10),
        st.one_of(
            st.builds("bytes={}-".format, st.integers(0, 45)),
            st.builds("bytes=-{}".format, st.integers(0, 45)),
            st.builds("bytes={}-{}".format, st.integers(0, 45), st.integers(0, 45)),
        ),
        st.booleans(),
    )
    def test_any_range_equals_slice(
        self, data: bytes, lengths: list[int], header: str, known: bool
    ) -> None:
        """For any range and any pieces, the client gets the slice."""
        pieces, rest = [], data
        for length in lengths:
            pieces.append(rest[:length])
            rest = rest[length:]
        nar = self.cache.add_nar(KEY, *pieces, rest, size=len(data) if known else None)
        response = self.server.get(PATH, range=header)
        status, part = reference(data, header)
        self.assertEqual(response.status, status)
        self.assertTrue(response.whole)
        if status == 416:
            self.assertEqual(response.headers["content-range"], f"bytes */{len(data)}")
        else:
            self.assertEqual(response.body, part)
        if status == 206:
            start, stop, size = (
                int(text)
                for text in response.headers["content-range"]
                .removeprefix("bytes ")
                .replace("/", "-")
                .split("-")
            )
            self.assertEqual((data[start : stop + 1], size), (part, len(data)))
        self.assertEqual(nar.closed, 1)
