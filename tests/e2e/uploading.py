"""Every stock Nix client uploads paths, and another one installs them.

test_upload has the clients.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing

from ncps.nix.narinfo import NarInfo
from tests.e2e.bench import Bench
from tests.e2e.closure import Closure, make_closure
from tests.e2e.daemon import Daemon, UpstreamCache, fetch
from tests.e2e.nixclient import NixError, end, finish
from tests.system.faults import Cut
from tests.system.origin import Origin
from tests.system.stage import QUICK
from tests.waiting import wait_until

ALLOWED = "--cache-allow-put-verb"
NOWHERE = UpstreamCache("http://127.0.0.1:9", f"nobody.test-1:{'A' * 43}=")
"""An upstream that is away."""

ENCODINGS = ("br", "bzip2", "gzip", "lz4", "none", "xz", "zstd")
"""Compressions that Nix can give a narinfo, a listing and a log, and ncps can decode."""

DERIVATION = 'derivation { name = "NAME"; system = "x86_64-linux"; builder = "/bin/sh"; }'
INFO = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"
LOG = "building\n" * 1000


class UploadBench(Bench):
    """A client that uploads to a cache whose upstream is away."""

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


class Uploading(UploadBench):
    """Tests for every client."""

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


class UploadEncodings(UploadBench):
    """Tests for clients with `narinfo-compression` and the like; others ignore it."""

    def test_every_encoding(self) -> None:
        """Narinfos, listings and logs; ncps refuses an unknown encoding with the reason."""
        store = ("--store", str(self.maker.store))
        paths = []
        for encoding in ENCODINGS:
            parameters = "&".join(
                f"{kind}-compression={encoding}" for kind in ("narinfo", "ls", "log")
            )
            path = self.add(encoding)
            self.upload(path, f"compression=none&write-nar-listing=1&{parameters}")
            digest = path.rpartition("/")[2][:32]
            narinfo = NarInfo.parse(fetch(f"{self.target.url}/{digest}.narinfo").body)
            self.assertEqual(path, str(narinfo.store_path))
            listing = json.loads(fetch(f"{self.target.url}/{digest}.ls").body)
            self.assertEqual("regular", listing["root"]["type"])
            text = DERIVATION.replace("NAME", encoding)
            drv = self.maker.run("nix-instantiate", *store, "-E", text).split()[-1]
            self.maker.keep_log(drv, LOG)
            to = ("--to", f"{self.target.url}/upload?{parameters}")
            self.maker.run("nix", "store", "copy-log", "--from", str(self.maker.store), *to, drv)
            log = fetch(f"{self.target.url}/log/{drv.rpartition('/')[2]}")
            self.assertEqual(LOG.encode(), log.body)
            paths.append(path)
        self.client().install(self.target.url, [self.target.public_key()], *paths)
        for encoding in ("compress", "lzip", "lzma"):
            with self.assertRaises(NixError) as caught:
                self.upload(self.add(encoding), f"narinfo-compression={encoding}")
            self.assertIn("415", str(caught.exception))


class UploadsBesideTrouble(Bench):
    """The upstream of a cache has a fault while closures are uploaded."""

    def setUp(self) -> None:
        super().setUp()
        self.maker = self.client()

    def closure(self, seed: int) -> Closure:
        directory = self.fresh_directory("sources")
        return make_closure(self.maker, directory, seed=seed, small=6, large=[3_000_000])

    def cache(self, upstream: str) -> Daemon:
        """Return a started cache that accepts uploads outside of `/upload`, too."""
        key = f"nobody.test-1:{'A' * 43}="
        options = (*QUICK, ALLOWED, "--cache-upload-at-root")
        daemon = Daemon(
            self.fresh_directory("ncps"), [UpstreamCache(upstream, key)], options=options
        )
        daemon.is_forked = True
        self.addCleanup(daemon.kill)
        daemon.start()
        return daemon

    def copying(self, closure: Closure, target: str) -> list[str]:
        """Return the words of a command that uploads a closure."""
        return ["nix", "copy", "--from", str(self.maker.store), "--to", target, closure.root]

    def check_installed(self, closure: Closure, daemon: Daemon) -> None:
        """Check that a new client can install a closure."""
        client, key = self.client(), daemon.public_key()
        client.install(daemon.url, [key], closure.root)
        client.verify([key], closure.root)

    def uploads_go_on(self, upstream: str) -> None:
        """Upload a closure below `/upload`, and another one outside of it."""
        daemon = self.cache(upstream)
        for seed, place in enumerate(("/upload", "")):
            closure = self.closure(seed)
            self.maker.run(*self.copying(closure, f"{daemon.url}{place}?compression=zstd"))
            self.check_installed(closure, daemon)
        self.assertNotIn("Traceback", daemon.log)
        daemon.stop()

    def test_upstream_that_hangs(self) -> None:
        """It accepts connections and does not answer."""
        with closing(socket.create_server(("127.0.0.1", 0), backlog=1000)) as deaf:
            self.uploads_go_on(f"http://127.0.0.1:{deaf.getsockname()[1]}")

    def test_upstream_that_refuses(self) -> None:
        """It has no listener."""
        self.uploads_go_on(NOWHERE.url)

    def test_upstream_that_cuts_each_answer(self) -> None:
        """It also cuts the answer about the kind of the cache."""
        with Origin() as origin:
            origin.serve("/nix-cache-info", INFO, Cut(5))
            self.uploads_go_on(origin.url)

    def test_upstream_that_ends_in_the_middle_of_an_upload(self) -> None:
        """The upload continues, and needs no second attempt."""
        for place in ("/upload", ""):
            origin = Origin()
            origin.start()
            self.addCleanup(origin.stop)
            origin.serve("/nix-cache-info", INFO)
            daemon, closure = self.cache(origin.url), self.closure(7)
            target = f"{daemon.url}{place}?compression=none"
            copy = self.maker.start(*self.copying(closure, target))
            self.addCleanup(end, copy)
            wait_until(lambda: daemon.stored_nars() != [], "the first NAR", daemon=daemon)  # noqa: B023
            origin.stop()
            finish(copy)
            self.check_installed(closure, daemon)
