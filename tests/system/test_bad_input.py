"""Bad input to a whole daemon: loops, contradictions, huge values and bombs."""

from __future__ import annotations

import hashlib
import random
import re
import time
from functools import partial

from attrs import evolve

from tests.chaos.vitals import Vitals
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import Dialect, StorePath, SyntheticCache, compress, pack_nar, to_base32
from tests.system.faults import Status
from tests.system.origin import Origin
from tests.system.stage import Stage
from tests.waiting import wait_until

MIB = 1024 * 1024
BOMB = 64 * MIB
MEMORY_MIB = 250
"""Most memory of a daemon during the bombs; it starts with about 60."""


class BadInputTests(Stage):
    """One upstream is bad; the answers of the other one must arrive."""

    def peak_mib(self, daemon: Daemon) -> int:
        """Return the most memory the daemon has had so far."""
        return Vitals.of(daemon).peak_kib // 1024

    def said(self, path: StorePath, text: bytes) -> Origin:
        """Return an origin with the cache and another text for one path."""
        origin = self.mounted()
        origin.serve(f"/{path.digest}.narinfo", text)
        return origin

    def assert_passed_over(self, path: StorePath, text: bytes, reason: str) -> None:
        """Check that a bad narinfo does no harm beside a good one, and alone is an error."""
        daemon = self.daemon(self.said(path, text), self.mounted())
        self.assert_served(daemon, path)
        alone = self.daemon(self.said(path, text))
        self.assertEqual(502, self.narinfo(alone, path).status)
        self.wait_for_log(alone, "failed for", reason)
        self.assertLess(self.peak_mib(alone), MEMORY_MIB)

    # Loops

    def test_upstream_that_is_ncps_itself(self) -> None:
        """A cache that is its own upstream asks once, and serves paths of other upstreams."""
        path = self.cache.add(5000)
        daemon = self.make_daemon(self.mounted())
        itself = UpstreamCache(f"{daemon.url}?priority=1", self.cache.key.public)
        daemon.upstreams = (itself, *daemon.upstreams)
        daemon.start()
        self.assert_served(daemon, path)
        self.assertEqual(404, self.ask(daemon, f"/{'0' * 32}.narinfo").status)
        self.wait_for_log(daemon, "leads back to this cache")

    def test_two_ncps_that_have_each_other_for_upstreams(self) -> None:
        """In a ring no request hangs: paths of an origin are served, others are soon 404."""
        path, unknown = self.cache.add(5000), self.cache.add(5000)
        origin = self.mounted()
        first, second = self.make_daemon(origin), self.make_daemon(origin)
        for one, other in ((first, second), (second, first)):
            ring = UpstreamCache(f"{other.url}?priority=1", self.cache.key.public)
            one.upstreams = (ring, *one.upstreams)
        first.start()
        second.start()
        self.assert_served(first, path)
        self.assert_served(second, path)
        absent = f"/{'0' * 32}.narinfo"
        began = time.monotonic()
        self.assertEqual(404, self.ask(first, absent).status)
        self.assertLess(time.monotonic() - began, 1)
        self.assertLessEqual(origin.gets(absent), 2)
        origin.withdraw(f"/{unknown.digest}.narinfo")
        calls = [partial(self.narinfo, daemon, unknown) for daemon in (first, second)]
        answers = self.at_once(*calls)
        self.assertEqual([404, 404], [answer.status for answer in answers])
        self.cache.mount(origin)
        self.assert_served(first, unknown)  # no cache has remembered that

    # Contradictions

    def test_upstreams_that_disagree_about_the_nar_hash(self) -> None:
        """Of two NarHashes the stored one wins, else the newer one; ncps logs and counts that."""
        path = self.cache.add(5000, compression="zstd")
        first, second = self.mounted(), self.origin()
        other = evolve(path, nar=pack_nar(b"something else"))
        said = dict(other.fields())["NarHash"]
        daemon = self.daemon(first, second)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        second.serve(f"/{path.digest}.narinfo", other.narinfo())
        first.plan = lambda _request: [Status(500)]
        [stored] = daemon.stored_nars()
        stored.unlink()
        self.assertNotEqual(200, self.nar(daemon, path).status)
        for digit in range(5):  # until the first one is known to be away
            self.ask(daemon, f"/{str(digit) * 32}.narinfo")
        wait_until(
            lambda: self.narinfo(daemon, path).fields.get("NarHash") == said,
            "the other upstream's word, now that the first one's NAR cannot be had",
        )
        text = self.ask(daemon, "/metrics").body.decode()
        found = re.search(r"^ncps_upstream_disagreements_total (\S+)", text, re.MULTILINE)
        assert found is not None
        self.assertGreaterEqual(float(found[1]), 1)
        self.wait_for_log(daemon, "says NarHash", "one is used")

    # Huge values

    def test_narinfo_of_ten_megabytes(self) -> None:
        """ncps does not read it to its end."""
        path = self.cache.add(5000)
        text = path.narinfo() + b"Extra: " + b"x" * 10_000_000 + b"\n"
        self.assert_passed_over(path, text, "larger than")

    def test_references_to_hundred_thousand_paths(self) -> None:
        """If the signature is good, ncps serves it, at little cost, and delays no other client.

        The order of the references is not promised.
        """
        path = self.cache.add(5000)
        noise = random.Random(1)
        names = sorted(f"{to_base32(noise.randbytes(20))}-x" for _ in range(100_000))
        mixed = noise.sample(names, len(names))
        text = evolve(path, references=tuple(mixed)).narinfo()
        daemon = self.daemon(self.said(path, text))
        fetching = self.in_background(lambda: self.narinfo(daemon, path))
        longest = 0.0
        while not fetching.done():
            began = time.monotonic()
            self.assertEqual(200, self.ask(daemon, "/healthz").status)
            longest = max(longest, time.monotonic() - began)
        self.assertEqual(200, fetching.result().status)
        self.assertLess(longest, 1.0)  # 0.05 s on an idle machine, and 10 s if a client has to wait
        for _ in range(5):
            answer = self.narinfo(daemon, path)
            self.assertEqual((200, True), (answer.status, answer.whole))
            self.assertEqual(sorted(answer.fields["References"].split()), names)
        self.assert_served(daemon, path)
        self.assertLess(self.peak_mib(daemon), MEMORY_MIB)

    def test_nar_size_of_two_to_the_63(self) -> None:
        """A number that no database column can hold is refused by the parser."""
        path = self.cache.add(5000)
        for size in (2**63, 2**64, 10**300):
            self.assert_passed_over(path, path.narinfo(NarSize=str(size)), "NarSize")

    def test_nar_size_just_below_two_to_the_63(self) -> None:
        """The largest possible NarSize is false: the inspection finds the NAR wrong.

        A file with such a NarSize is not unpacked while it arrives, only by the inspection.
        """
        path = self.cache.add(5000, compression="zstd")
        huge = _Huge(path)
        daemon = self.daemon(self.said(path, huge.narinfo()))
        self.assert_served(daemon, path)
        self.wait_for_log(daemon, "is set aside", "NAR of")
        wait_until(lambda: not daemon.stored_nars(), "its file to be moved", daemon=daemon)

    def test_nar_with_a_path_upwards_is_never_unpacked(self) -> None:
        """A NAR with the name `../..` is bytes like any other: ncps writes nothing elsewhere."""
        entry = b"".join(map(_nar_string, [b"entry", b"(", b"name", b"../../evil", b"node", b"("]))
        leaf = b"".join(map(_nar_string, [b"type", b"regular", b"contents", b"evil", b")", b")"]))
        head = b"".join(map(_nar_string, [b"nix-archive-1", b"(", b"type", b"directory"]))
        nar = head + entry + leaf + _nar_string(b")")
        path = self.cache.add(100, compression="none")
        evil = evolve(path, nar=nar, file=nar, url=f"nar/{_sha256(nar)}.nar")
        origin = self.origin()
        self.cache.mount_path(origin, evil)
        daemon = self.daemon(origin)
        self.assert_served(daemon, evil)
        self.wait_until_stored(daemon, evil)
        self.assertEqual([], list(self.directory.rglob("*evil*")))

    # Bombs

    def test_bombs_in_every_compression(self) -> None:
        """A few bytes that become 64 MiB cost no more memory than the promised NAR."""
        zeros = bytes(BOMB)
        for compression in ("xz", "zstd", "bzip2", "br", "gzip", "lz4"):
            cache = SyntheticCache(2)
            # Without FileHash, only the NAR can prove the file, so that it is unpacked immediately.
            path = cache.add(1000, compression=compression, dialect=Dialect.BARE)
            bomb = evolve(path, file=compress(zeros, compression))
            origin = self.origin()
            cache.mount_path(origin, bomb)
            origin.serve(f"/{path.digest}.narinfo", path.narinfo())
            daemon = self.daemon(origin)
            answer = self.nar(daemon, path)
            self.assertFalse(answer.status == 200 and answer.whole, compression)
            self.wait_for_log(daemon, "download of", "failed")
            self.assertEqual([], daemon.stored_nars(), compression)
            self.assertLess(self.peak_mib(daemon), MEMORY_MIB, compression)
            daemon.stop()
            origin.stop()

    def test_bombs_behind_a_false_file_hash(self) -> None:
        """ncps does not unpack a file further after it is found wrong."""
        zeros = bytes(BOMB)
        path = self.cache.add(1000, compression="xz")
        bomb = compress(zeros, "xz")
        origin = self.said(path, path.narinfo(FileSize=str(len(bomb))))
        origin.serve(path.nar_target, bomb)
        daemon = self.daemon(origin)
        answer = self.nar(daemon, path)
        self.assertFalse(answer.status == 200 and answer.whole)
        self.wait_for_log(daemon, "download of", "failed", "longer than")
        self.assertLess(self.peak_mib(daemon), MEMORY_MIB)


class _Huge:
    """A path with the largest possible NarSize and a good signature."""

    def __init__(self, path: StorePath) -> None:
        self._path = path

    def narinfo(self) -> bytes:
        """Return the narinfo."""
        path, size = self._path, 2**63 - 1
        digest = dict(path.fields())["NarHash"]
        fingerprint = f"1;{path.path};{digest};{size};"
        return path.narinfo(NarSize=str(size), Sig=path.key.sign(fingerprint))


def _nar_string(data: bytes) -> bytes:
    padding = -len(data) % 8
    return len(data).to_bytes(8, "little") + data + bytes(padding)


def _sha256(data: bytes) -> str:
    return to_base32(hashlib.sha256(data).digest())
