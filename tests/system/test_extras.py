"""Logs, listings and debug information through a daemon, over origins with faults."""

from __future__ import annotations

import gzip
import json
import lzma
from functools import partial

import brotli
import zstandard

from tests.e2e.daemon import Daemon
from tests.nars import Tree, archive
from tests.system.faults import Cut, Fault, Html, Only, Short, Silence, Status
from tests.system.stage import Stage
from tests.waiting import wait_until

DRV = "00000000000000000000000000000000-a+b=c?d.drv"
LOG = "/log/00000000000000000000000000000000-a+b=c%3Fd.drv"
TEXT = b"building\n\x1b[31mred\x1b[0m\n" * 1000
BUILD_ID = "ab" + "c" * 38
SYMBOLS = b"\x7fELF" + bytes(range(256)) * 4000
TREE: Tree = {
    b"lib": {b"debug": {b".build-id": {b"ab": {b"c" * 38 + b".debug": SYMBOLS}}}},
    b"zz": b"the rest" * 1000,
}


class LogTests(Stage):
    def log(self, daemon: Daemon, name: str = DRV) -> tuple[int, bytes, str]:
        answer = self.ask(daemon, f"/log/{name}")
        return answer.status, answer.body, answer.outcome

    def test_logs_of_each_encoding_arrive_and_stay(self) -> None:
        """A client gets text from each encoding of an upstream, and again without the upstream."""
        origin = self.origin()
        encodings = {
            "br": brotli.compress(TEXT),
            "zstd": zstandard.ZstdCompressor().compress(TEXT),
            "xz": lzma.compress(TEXT),
            "gzip": gzip.compress(TEXT),
            "identity": TEXT,
        }
        names = {coding: f"{n:032}-{coding}.drv" for n, coding in enumerate(encodings)}
        for coding, data in encodings.items():
            headers = [("Content-Encoding", coding)]
            origin.serve(f"/log/{names[coding]}", data, headers=headers)
        origin.serve(LOG, TEXT)
        daemon = self.daemon(origin)
        for name in (*names.values(), DRV):
            self.assertEqual((200, TEXT, "miss"), self.log(daemon, name))
        origin.stop()
        daemon.stop()
        daemon.start()
        for name in (*names.values(), DRV):
            self.assertEqual((200, TEXT, "hit"), self.log(daemon, name))
        self.assertEqual(404, self.ask(daemon, f"/log/{DRV}x").status)

    def test_faults_of_one_upstream_are_overcome(self) -> None:
        """If an upstream fails, ncps asks the next one; alone, its failure is no absence."""
        faults: tuple[Fault, ...] = (
            Status(500),
            Html(),
            Silence(),
            Cut(100),
            Short(100),
            Status(404),
        )
        bad, good = self.origin(), self.origin()
        daemon = self.daemon(bad, good)
        for number, fault in enumerate(faults):
            name = f"{number:032}-x.drv"
            bad.serve(f"/log/{name}", TEXT, fault)
            good.serve(f"/log/{name}", TEXT)
            self.assertEqual((200, TEXT, "miss"), self.log(daemon, name), fault)
        alone = self.daemon(bad)
        statuses = [self.log(alone, f"{n:032}-x.drv")[0] for n in (0, 1, 5)]
        self.assertEqual([503, 404, 404], statuses)

    def test_huge_log_is_not_read_to_its_end(self) -> None:
        """ncps refuses a log of 40 MB after the limit, and continues to serve."""
        origin = self.mounted()
        origin.serve(LOG, b"x" * 40_000_000)
        daemon = self.daemon(origin)
        self.assertEqual(502, self.log(daemon)[0])
        limit = 'ncps_limit_reached_total{limit="cache-extra-max-object-size"}'
        self.assertEqual(1, self.metric(daemon, limit))
        self.assertEqual([], list(daemon.storage.glob("store/extra/*/*/*/*")))


class ListingTests(Stage):
    def test_listing_is_passed_on_and_then_made(self) -> None:
        """Before the NAR is stored, the listing is that of the upstream; then it is our own."""
        path = self.cache.add(5000, compression="zstd")
        other = b'{"version":1,"root":{"type":"regular","size":1,"narOffset":96}}'
        origin = self.mounted()
        origin.serve(
            f"/{path.digest}.ls", brotli.compress(other), headers=[("Content-Encoding", "br")]
        )
        daemon = self.daemon(origin)
        target = f"/{path.digest}.ls"
        self.assertEqual((404, "miss"), self._seen(daemon, f"/upload{target}"))
        self.assertEqual(other, self.ask(daemon, target).body)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        origin.stop()
        root = {"type": "regular", "size": 5000, "narOffset": 96}
        for outcome in ("miss", "hit"):
            answer = self.ask(daemon, target)
            self.assertEqual((200, outcome), (answer.status, answer.outcome), answer.body)
            self.assertEqual({"version": 1, "root": root}, answer.json)
            self.assertEqual("application/json", answer.headers["content-type"])
        self.assertEqual((200, "hit"), self._seen(daemon, f"/upload{target}"))

    def _seen(self, daemon: Daemon, target: str) -> tuple[int, str]:
        answer = self.ask(daemon, target)
        return answer.status, answer.outcome


class DebugTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.cache.add(nar=archive(TREE))
        self.there = self.mounted()
        link = {
            "archive": f"../{self.path.url}",
            "member": f"lib/debug/.build-id/ab/{'c' * 38}.debug",
        }
        self.there.serve(f"/debuginfo/{BUILD_ID}", json.dumps(link).encode())

    def test_link_leads_to_a_nar_of_ours(self) -> None:
        """The archive in a link is served under its URL, also after a restart without upstreams."""
        daemon = self.daemon(self.there)
        for outcome in ("miss", "hit"):
            answer = self.ask(daemon, f"/debuginfo/{BUILD_ID}")
            self.assertEqual((200, outcome), (answer.status, answer.outcome))
            nar = self.ask(daemon, "/" + answer.json["archive"].removeprefix("../"))
            self.assertEqual(self.path.file, nar.body)
        wait_until(lambda: daemon.stored_nars() != [], "the NAR to be stored")
        self.there.stop()
        daemon.stop()
        daemon.start()
        self.assertEqual(SYMBOLS, self.ask(daemon, f"/buildid/{BUILD_ID}/debuginfo").body)

    def test_symbols_of_any_nar_that_was_fetched(self) -> None:
        """ncps knows the build IDs in small and large NARs of each compression.

        No upstream is asked for that, and no NAR is read once more.
        """
        daemon = self.daemon(self.there)
        paths = {}
        for number, (compression, size) in enumerate(
            (kind, size) for kind in ("none", "zstd", "xz") for size in (1000, 2_000_000)
        ):
            symbols = b"\x7fELF" + bytes(size) + compression.encode()
            folder: Tree = {b"%02x" % number: {b"d" * 38 + b".debug": symbols}}
            tree: Tree = {b"bin": {b"x": b"y"}, b"lib": {b"debug": {b".build-id": folder}}}
            path = self.cache.add(nar=archive(tree), compression=compression)
            self.cache.mount_path(self.there, path)
            self.assert_served(daemon, path)
            paths[f"{number:02x}" + "d" * 38] = symbols
        for build_id, symbols in paths.items():
            wait_until(partial(self._is_known, daemon, build_id), "the link", daemon=daemon)
            self.assertEqual(symbols, self.ask(daemon, f"/buildid/{build_id}/debuginfo").body)
        self.assertEqual([], list(daemon.storage.glob("store/extra/*/listing/*")))

    def _is_known(self, daemon: Daemon, build_id: str) -> bool:
        return self.ask(daemon, f"/upload/debuginfo/{build_id}").status == 200

    def test_symbols_through_an_upstream_that_breaks_off(self) -> None:
        """ncps resumes the NAR of the symbols; a client gets all bytes or an error."""
        self.cache.mount_path(self.there, self.path, "", Only(Cut(500), 1))
        daemon = self.daemon(self.there)
        answer = self.ask(daemon, f"/buildid/{BUILD_ID}/debuginfo")
        self.assertEqual((200, SYMBOLS), (answer.status, answer.body))
        self.assertEqual(404, self.ask(daemon, f"/buildid/{'0' * 40}/debuginfo").status)


class BesideTests(Stage):
    def test_eviction_and_the_sweep_leave_extras_alone(self) -> None:
        """The log and the listing of an evicted NAR stay, and no sweep removes them."""
        first = self.cache.add(150_000, compression="none")
        others = [self.cache.add(150_000, compression="none") for _ in range(12)]
        origin = self.mounted()
        origin.serve(LOG, TEXT)
        options = ("--cache-max-size", "1M", "--cache-lru-grace", "0s")
        daemon = self.make_daemon(origin, options=(*options, "--cache-lru-orphan-grace", "1ms"))
        daemon.constants |= {"ncps.assembly.upkeep.FIRST_S": 0.5}
        daemon.start()
        self.assertEqual(200, self.ask(daemon, f"/log/{DRV}").status)
        self.assert_served(daemon, first)
        self.wait_until_stored(daemon, first)
        listing = self.ask(daemon, f"/{first.digest}.ls").body
        extras = sorted(daemon.storage.glob("store/extra/*/*/*/*"))
        self.assertEqual(2, len(extras))
        for path in others:
            self.assert_served(daemon, path)
        self.wait_for_log(daemon, "removed", "NARs")
        name = self.nar_target(daemon, first).rpartition("/")[2]
        wait_until(
            lambda: name not in [file.name for file in daemon.stored_nars()],
            "the NAR to be evicted",
            daemon=daemon,
        )
        orphan = daemon.storage / "store" / "nar" / "0" / "00" / f"{'0' * 52}.nar"
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"nobody knows it")
        daemon.stop()
        daemon.start()
        wait_until(lambda: not orphan.exists(), "the sweep", daemon=daemon)
        self.assertEqual(extras, sorted(daemon.storage.glob("store/extra/*/*/*/*")))
        answer = self.ask(daemon, f"/{first.digest}.ls")
        self.assertEqual((listing, "hit"), (answer.body, answer.outcome))
        self.assertEqual("hit", self.ask(daemon, f"/log/{DRV}").outcome)
