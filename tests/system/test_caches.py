"""Real tools accept the synthetic caches as binary caches."""

from __future__ import annotations

import hashlib
import lzma
import random
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.bench import remove_tree
from tests.e2e.nixclient import NixClient, NixError, find_release
from tests.services import require
from tests.system.caches import (
    Dialect,
    SyntheticCache,
    TestKey,
    forged,
    pack_nar,
    stored_xz,
    to_base32,
)
from tests.system.origin import Origin


class FormatTests(SynchronousTestCase):
    """The formats match known values."""

    def test_empty_hash_in_base32(self) -> None:
        """The SHA-256 of nothing has the text that Nix prints."""
        wanted = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        self.assertEqual(wanted, to_base32(hashlib.sha256().digest()))

    def test_nar_of_hello(self) -> None:
        """The NAR of a file with "hello" is the one that Nix makes."""
        nar = pack_nar(b"hello\n")
        self.assertEqual(120, len(nar))
        wanted = "04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw"
        self.assertEqual(wanted, to_base32(hashlib.sha256(nar).digest()))

    def test_stored_xz(self) -> None:
        """liblzma reads files of one and several pieces, and reports damage."""
        for size in (1, 65_536, 65_537, 200_000):
            data = random.Random(size).randbytes(size)
            file = stored_xz(data)
            self.assertEqual(data, lzma.decompress(file))
            at = file.index(data[:16])
            damaged = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
            self.assertRaises(lzma.LZMAError, lzma.decompress, damaged)

    def test_seed_decides_everything(self) -> None:
        """The same seed gives the same cache, another seed another cache."""
        first, again, other = (SyntheticCache(seed).add().narinfo() for seed in (1, 1, 2))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)


class RealClientTests(SynchronousTestCase):
    """A stock Nix installs from them directly."""

    def setUp(self) -> None:
        release = find_release("trixie")
        require(release, "Nix client 'trixie'")
        assert release is not None
        directory = Path(tempfile.mkdtemp(prefix="ncps-caches-"))
        self.addCleanup(remove_tree, directory)
        self.client = NixClient(release, directory / "client")
        self.origin = Origin()
        self.origin.start()
        self.addCleanup(self.origin.stop)

    def test_every_dialect_and_compression_installs(self) -> None:
        """Nix installs from every dialect in every compression, with our signatures."""
        cache = SyntheticCache()
        for compression in ("none", "xz", "zstd", "bzip2", "br", "gzip", "lz4"):
            cache.add(compression=compression, references=cache.paths[-2:], itself=True)
        for dialect in Dialect:
            # Nix decodes both layers of a zstd file with Content-Encoding zstd together, and fails.
            compression = "none" if dialect is Dialect.ENCODED else "zstd"
            cache.add(dialect=dialect, compression=compression, references=cache.paths[-1:])
        paths = [path.path for path in cache.paths]
        self.client.install(cache.mount(self.origin), [cache.key.public], *paths)
        self.client.verify([cache.key.public], *paths)

    def test_forged_path_is_refused(self) -> None:
        """Nix refuses a path that another key has signed, so the signatures count."""
        cache = SyntheticCache()
        path = forged(cache.add(), key=TestKey.of("evil.test-1"))
        url = cache.mount(self.origin)
        cache.mount_path(self.origin, path)
        with self.assertRaises(NixError):
            self.client.install(url, [cache.key.public], path.path)
