"""Requests of clients: ranges, validators, methods and paths, on hits and on misses."""

from __future__ import annotations

import time

from tests.e2e.daemon import Daemon
from tests.system.bad_requests import METHODS, NOT_FOUND, RAW, SMUGGLED, UNKNOWN_EXTENSIONS
from tests.system.caches import StorePath
from tests.system.faults import Delay, NoLength, Stall
from tests.system.origin import Origin
from tests.system.stage import Stage, requests
from tests.system.wire import Answer, raw_status, send_raw
from tests.waiting import wait_until

SIZE = 2_000_000
MIDDLE = 1_000_000


class ServingStage(Stage):
    """One NAR, stored or stalled half-way at the upstream."""

    def stored(self) -> tuple[Daemon, StorePath, str]:
        """Return a daemon with a stored NAR, and its target."""
        path = self.cache.add(SIZE, compression="zstd")
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        return daemon, path, self.nar_target(daemon, path)

    def arriving(self) -> tuple[Daemon, StorePath, str, Origin]:
        """Return a daemon with half of a NAR, its target, and the stall."""
        path = self.cache.add(SIZE, compression="zstd")
        origin = self.mounted(Stall(MIDDLE))
        daemon = self.daemon(origin, options=["--cache-upstream-idle-timeout", "60s"])
        target = self.nar_target(daemon, path)
        self.exchange(daemon, target)
        origin.wait_for_stall(path.nar_target)
        return daemon, path, target, origin

    def active(self, daemon: Daemon) -> float:
        """Return the number of running requests, including this one."""
        text = self.ask(daemon, "/metrics").body.decode()
        (line,) = (t for t in text.splitlines() if t.startswith("http_server_active_requests "))
        return float(line.split()[1])

    def assert_validated(self, answer: Answer) -> None:
        """Check the headers of each answer with bytes of a NAR."""
        self.assertEqual("bytes", answer.headers["accept-ranges"])
        self.assertRegex(answer.headers["etag"], r'^"[^"]+"$')
        self.assertIn("immutable", answer.headers["cache-control"])
        self.assertEqual("application/x-nix-nar", answer.headers["content-type"])
        self.assertNotIn("content-encoding", answer.headers)
        self.assertIn("x-cache", answer.headers)
        self.assertRegex(answer.headers["server-timing"], r"total;dur=[0-9.]+")


class HitTests(ServingStage):
    """A stored NAR."""

    def test_everything_a_client_may_want(self) -> None:
        """A complete NAR, ranges, validators and HEAD follow RFC 9110."""
        daemon, path, target = self.stored()
        size = len(path.file)
        whole = self.ask(daemon, target)
        self.assert_validated(whole)
        self.assertEqual((200, path.file, "hit"), (whole.status, whole.body, whole.outcome))
        self.assertEqual(str(size), whole.headers["content-length"])
        etag = whole.headers["etag"]

        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual((200, b""), (head.status, head.body))
        for name in ("content-length", "content-type", "etag", "accept-ranges", "cache-control"):
            self.assertEqual(whole.headers[name], head.headers[name])

        for asked, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=1000-", 1000, size),
            ("bytes=1000-1999", 1000, 2000),
            (f"bytes=0-{size + 5}", 0, size),
            ("bytes=-7", size - 7, size),
        ):
            part = self.ask(daemon, target, Range=asked)
            self.assert_validated(part)
            self.assertEqual((206, path.file[start:stop]), (part.status, part.body), asked)
            self.assertEqual(f"bytes {start}-{stop - 1}/{size}", part.headers["content-range"])
            self.assertEqual(str(stop - start), part.headers["content-length"])

        for asked in (f"bytes={size}-", "bytes=-0"):
            refused = self.ask(daemon, target, Range=asked)
            self.assertEqual(416, refused.status, asked)
            self.assertEqual(f"bytes */{size}", refused.headers["content-range"])

        for asked in ("bytes=5-1", "lines=1-2", "bytes=", "bytes=0-1,4-5", "bytes=a-b"):
            self.assertEqual(path.file, self.ask(daemon, target, Range=asked).body, asked)

        same = self.ask(daemon, target, Range="bytes=5-", If_Range=etag)
        self.assertEqual((206, path.file[5:]), (same.status, same.body))
        for other in ('"other"', f"W/{etag}", "Tue, 24 Nov 2026 01:40:28 GMT"):
            changed = self.ask(daemon, target, Range="bytes=5-", If_Range=other)
            self.assertEqual((200, path.file), (changed.status, changed.body), other)

        for validator in (etag, f'"x", {etag}', "*"):
            known = self.ask(daemon, target, If_None_Match=validator)
            self.assertEqual((304, b"", etag), (known.status, known.body, known.headers["etag"]))
        other_tag = self.ask(daemon, target, If_None_Match='"x"')
        self.assertEqual(200, other_tag.status)
        self.assertEqual(1, len(daemon.stored_nars()))

    def test_query_changes_nothing(self) -> None:
        """A query after a NAR's path names the same NAR and causes no request upstream."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.daemon(origin)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        target = self.nar_target(daemon, path)
        self.assertEqual(path.file, self.ask(daemon, f"{target}?x=1").body)
        self.assertEqual(1, sum(n for t, n in origin.get_counts().items() if "/nar/" in t))

    def test_uncompressed_nar_has_an_alias(self) -> None:
        """`.nar` and `.nar.none` are the same."""
        path = self.cache.add(compression="none")
        daemon = self.daemon(self.mounted())
        target = self.nar_target(daemon, path)
        self.assertEqual(path.file, self.ask(daemon, f"{target}.none").body)


class ArrivingTests(ServingStage):
    """A NAR that is still arriving."""

    def test_bytes_that_are_there_can_be_had(self) -> None:
        """While the upstream stalls, every reader gets the bytes that have arrived."""
        daemon, path, target, origin = self.arriving()
        for _ in range(2):
            reader = self.exchange(daemon, target)
            self.assertEqual(200, reader.status)
            self.assertEqual("coalesced", reader.headers["x-cache"])
            self.assertEqual(path.file[: MIDDLE // 2], reader.read(MIDDLE // 2))
        part = self.exchange(daemon, target, Range="bytes=0-799999")
        self.assertEqual(206, part.status)
        self.assertEqual(f"bytes 0-799999/{len(path.file)}", part.headers["content-range"])
        self.assertEqual(path.file[:500_000], part.read(500_000))
        head = self.ask(daemon, target, method="HEAD")  # the size is not known yet
        self.assertEqual((200, None), (head.status, head.headers.get("content-length")))
        etag = part.headers["etag"]
        self.assertEqual(304, self.ask(daemon, target, If_None_Match=etag).status)
        origin.release()
        answer = part.finish()
        self.assert_validated(answer)
        self.assertEqual((True, path.file[:800_000]), (answer.whole, answer.body))
        self.wait_until_stored(daemon, path)
        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual((200, str(len(path.file))), (head.status, head.headers["content-length"]))
        far = self.ask(daemon, target, Range=f"bytes={len(path.file)}-")
        self.assertEqual(416, far.status)

    def test_everybody_gets_the_rest_from_one_fetch(self) -> None:
        """Ten readers of one NAR, early, late and in part, cause one transfer (P4)."""
        daemon, path, target, origin = self.arriving()
        readers = [self.exchange(daemon, target) for _ in range(8)]
        tail = self.in_background(lambda: self.ask(daemon, target, Range="bytes=-1000"))
        rest = self.in_background(lambda: self.ask(daemon, target, Range=f"bytes={MIDDLE}-"))
        wait_until(lambda: self.active(daemon) == 12, "everybody to have asked")
        origin.release()
        for answer in self.at_once(*[reader.finish for reader in readers]):
            self.assertEqual((True, path.file), (answer.whole, answer.body))
        self.assertEqual(path.file[-1000:], tail.result(20).body)
        self.assertEqual(path.file[MIDDLE:], rest.result(20).body)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.wait_until_stored(daemon, path)

    def test_last_bytes_wait_for_the_verdict(self) -> None:
        """The end of a NAR is not sent before size and hash are verified (P1)."""
        path = self.cache.add(SIZE, compression="zstd")
        last = len(path.file) - 1
        origin = self.mounted(Stall(last))
        daemon = self.daemon(origin, options=["--cache-upstream-idle-timeout", "60s"])
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        wait_until(lambda: self._arrived(daemon) >= last, "all bytes but one")
        got = reader.read(last - 100_000)
        self.assertEqual(path.file[: len(got)], got)
        origin.release()
        self.assertEqual(path.file, reader.finish().body)

    def _arrived(self, daemon: Daemon) -> int:
        return sum(file.stat().st_size for file in (daemon.directory / "tmp").iterdir())

    def test_download_goes_on_without_clients(self) -> None:
        """When the only client leaves, the download continues and is stored (D5)."""
        path = self.cache.add(SIZE, compression="zstd")
        origin = self.mounted(Stall(MIDDLE))
        daemon = self.daemon(origin, options=["--cache-upstream-idle-timeout", "60s"])
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        reader.close()
        wait_until(
            lambda: any(not line["complete"] for line in requests(daemon)), "the client's leaving"
        )
        origin.release()
        self.wait_until_stored(daemon, path)
        self.assertEqual(1, origin.gets(path.nar_target))

    def test_client_resumes_while_it_arrives(self) -> None:
        """A client that was cut off resumes at its byte while the download runs (P2)."""
        daemon, path, target, origin = self.arriving()
        first = self.exchange(daemon, target)
        start = first.read(500_000)
        first.close()
        rest = self.exchange(daemon, target, Range=f"bytes={len(start)}-")
        self.assertEqual(206, rest.status)
        origin.release()
        self.assertEqual(path.file, start + rest.finish().body)

    def test_unknown_size_comes_in_chunks_or_by_length(self) -> None:
        """A NAR of unknown size is served in chunks immediately; a range waits for the size."""
        path = self.cache.add(SIZE, compression="zstd")
        origin = self.mounted(NoLength(), Stall(MIDDLE))
        narinfo = path.narinfo(FileSize=None)
        origin.serve(f"/{path.digest}.narinfo", narinfo)
        daemon = self.daemon(origin, options=["--cache-upstream-idle-timeout", "60s"])
        target = self.nar_target(daemon, path)
        reader = self.exchange(daemon, target)
        self.assertNotIn("content-length", reader.headers)
        self.assertEqual(path.file[:1000], reader.read(1000))
        origin.release()
        part = self.ask(daemon, target, Range="bytes=-10")
        self.assertEqual((206, path.file[-10:]), (part.status, part.body))
        answer = reader.finish()
        self.assertEqual((True, path.file), (answer.whole, answer.body))

    def test_first_bytes_come_with_the_upstreams(self) -> None:
        """A slow upstream's first bytes reach the client before the last ones are sent."""
        _daemon, _path, _target, origin = self.arriving()
        reader = self.exchange(_daemon, _target)
        self.assertEqual(1000, len(reader.read(1000)))
        self.assertEqual("open", origin.visits(_path.nar_target)[0].outcome)


class PathTests(Stage):
    """Good and bad paths and methods; nothing bad reaches an upstream."""

    def test_bad_hashes_are_404_without_a_question(self) -> None:
        """Malformed names are 404 (an unknown extension is 400) without a request upstream."""
        origin = self.origin()
        daemon = self.daemon(origin)
        origin.wait_for(lambda: origin.gets("/nix-cache-info"))
        for target in NOT_FOUND:
            answer = self.ask(daemon, target)
            self.assertEqual(404, answer.status, target[:100])
            self.assertEqual("no-store", answer.headers["cache-control"])
        for target in UNKNOWN_EXTENSIONS:
            self.assertEqual(400, self.ask(daemon, target).status)
        self.assertEqual([], [t for t in origin.get_counts() if t != "/nix-cache-info"])

    def test_bytes_that_are_no_request_are_refused(self) -> None:
        """NUL bytes, huge lines, a thousand headers and half requests end in 4xx or a timeout."""
        daemon = self.daemon(self.origin(), options=["--server-header-timeout", "500ms"])
        address = ("127.0.0.1", daemon.port)
        for each in RAW:
            answer = send_raw(address, each.data)
            self.assertIn(raw_status(answer), each.statuses, (each.data[:60], answer[:60]))
        self.assertEqual(200, self.ask(daemon, "/healthz").status)

    def test_smuggled_request_is_not_served(self) -> None:
        """A request with both a length and chunks is refused completely."""
        daemon = self.daemon(self.origin())
        answer = send_raw(("127.0.0.1", daemon.port), SMUGGLED)
        self.assertNotIn(b"test:", answer)

    def test_wrong_methods_are_405_with_allow(self) -> None:
        """Every method except GET, HEAD and OPTIONS is 405 with Allow.

        DELETE is a method of narinfos and NARs, but switched off.
        """
        path = self.cache.add()
        origin = self.mounted()
        daemon = self.daemon(origin)
        known = ("/", "/nix-cache-info", "/pubkey", "/healthz", "/readyz", "/metrics")
        for target in (*known, f"/{path.digest}.narinfo", path.nar_target):
            methods = {"GET", "HEAD", "OPTIONS"} | ({"DELETE"} if target not in known else set())
            for method in METHODS:
                answer = self.ask(daemon, target, method=method)
                self.assertEqual(405, answer.status, (method, target))
                self.assertEqual(methods - {method}, set(answer.headers["allow"].split(", ")))
        self.assertEqual(0, origin.gets(path.nar_target))

    def test_upload_is_refused_before_its_body(self) -> None:
        """A PUT of a gigabyte is refused after its head."""
        daemon = self.daemon(self.origin())
        head = b"PUT /pubkey HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
        answer = send_raw(("127.0.0.1", daemon.port), head + b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(405, raw_status(answer))

    def test_pages_about_the_cache(self) -> None:
        """Index, nix-cache-info, public key and /healthz have their texts, also for HEAD."""
        daemon = self.daemon(self.origin())
        key = daemon.public_key()
        index = self.ask(daemon, "/")
        self.assertEqual("application/json", index.headers["content-type"])
        self.assertEqual("test", index.json["hostname"])
        self.assertEqual(key, index.json["publicKey"])
        self.assertIn("version", index.json)
        info = self.ask(daemon, "/nix-cache-info")
        self.assertEqual(b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n", info.body)
        self.assertRegex(key, r"^test:[A-Za-z0-9+/]{43}=$")
        self.assertEqual(b".", self.ask(daemon, "/healthz").body)
        for target in ("/", "/nix-cache-info", "/pubkey", "/healthz", "/readyz", "/metrics"):
            head = self.ask(daemon, target, method="HEAD")
            self.assertEqual((200, b""), (head.status, head.body), target)
            self.assertIn("content-length", head.headers)

    def test_keep_alive_connection_serves_many(self) -> None:
        """Pipelined requests on one connection are answered in order."""
        daemon = self.daemon(self.origin())
        targets = ("/pubkey", "/nope", "/healthz", "/nix-cache-info")
        data = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % t.encode() for t in targets)
        last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = send_raw(("127.0.0.1", daemon.port), data + last)
        found = [part[9:12] for part in answer.split(b"HTTP/1.1 ")[1:] if part]
        self.assertEqual(5, len(found))
        self.assertLess(answer.index(b"test:"), answer.index(b"404"))

    def test_slow_upstream_does_not_hold_up_others(self) -> None:
        """While one client waits for a slow upstream, hits are served without delay."""
        slow, fast = self.cache.add(), self.cache.add()
        origin = self.mounted()
        daemon = self.daemon(origin, options=["--cache-upstream-response-header-timeout", "10s"])
        self.narinfo(daemon, fast)
        origin.serve(f"/{slow.digest}.narinfo", slow.narinfo(), Delay(1000))
        waiting = self.in_background(lambda: self.narinfo(daemon, slow))
        origin.wait_for(lambda: origin.gets(f"/{slow.digest}.narinfo"))
        began = time.monotonic()
        self.assertEqual("hit", self.narinfo(daemon, fast).outcome)
        self.assertLess(time.monotonic() - began, 1.0)
        origin.release()
        self.assertEqual(200, waiting.result(20).status)
