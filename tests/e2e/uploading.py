"""Every stock Nix client uploads paths, and another one installs them.

test_upload has the clients.
"""

from __future__ import annotations

from ncps.nix.narinfo import NarInfo
from tests.e2e.bench import Bench
from tests.e2e.daemon import Daemon, UpstreamCache, fetch

ALLOWED = "--cache-allow-put-verb"
NOWHERE = UpstreamCache("http://127.0.0.1:9", f"nobody.test-1:{'A' * 43}=")
"""An upstream that is away."""


class Uploading(Bench):
    """Tests for every client."""

    def setUp(self) -> None:
        super().setUp()
        self.maker = self.client()
        self.sources = self.fresh_directory("sources")
        self.sources.mkdir()
        self.target = Daemon(self.fresh_directory("ncps"), [NOWHERE], options=(ALLOWED,))
        self.target.start()
        self.addCleanup(self.target.kill)

    def add(self, name: str) -> str:
        """Put a path into the maker's store; return it."""
        source = self.sources / name
        source.write_bytes(name.encode() * 300_000)
        store = ("--store", str(self.maker.store))
        return self.maker.run("nix", *store, "store", "add-file", str(source)).strip()

    def upload(self, path: str, parameters: str) -> None:
        store = ("--store", str(self.maker.store))
        url = f"{self.target.url}/upload?{parameters}"
        self.maker.run("nix", *store, "copy", "--to", url, path)

    def test_uploads_are_installed(self) -> None:
        """In each compression, while the upstream is away; another client installs them."""
        for compression in ("none", "xz", "zstd"):
            path = self.add(compression)
            digest = path.rpartition("/")[2][:32]
            for _ in range(2):
                self.upload(path, f"compression={compression}&narinfo-compression=xz")
            self.assertEqual(200, fetch(f"{self.target.url}/upload/{digest}.narinfo").status)
            narinfo = NarInfo.parse(fetch(f"{self.target.url}/{digest}.narinfo").body)
            self.assertEqual(compression, narinfo.compression)
            reader = self.client()
            reader.install(self.target.url, [self.target.public_key()], path)
