"""The base of the end-to-end tests: new clients, upstreams and daemons, all ended afterwards."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import opaque_key
from tests.e2e.closure import BinaryCache, Closure, export, make_closure
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.fileserver import FileServer
from tests.e2e.nixclient import NixClient, end, find_release, release
from tests.services import require
from tests.system.origin import Origin


def remove_tree(directory: Path) -> None:
    """Remove a directory with the read-only stores in it."""
    for path, _, _ in os.walk(directory):
        Path(path).chmod(0o700)
    shutil.rmtree(directory)


def temporary_directory() -> Path:
    """Make a directory; NCPS_TEST_KEEP=1 keeps it and all others when the tests end."""
    return Path(tempfile.mkdtemp(prefix="ncps-e2e-"))


def is_kept() -> bool:
    """Return whether the files of the tests are kept."""
    return os.environ.get("NCPS_TEST_KEEP") == "1"


@cache
def _shared_directory() -> Path:
    directory = temporary_directory()
    if not is_kept():
        atexit.register(remove_tree, directory)
    return directory


@cache
def shared_closure() -> Closure:
    """Return the closure that all tests of this process install."""
    found = find_release("trixie") or find_release("system")
    require(found, "Nix client at all")
    assert found is not None
    maker = NixClient(found, _shared_directory() / "maker")
    return make_closure(maker, _shared_directory() / "sources")


@cache
def shared_cache(compression: str) -> BinaryCache:
    """Return a binary cache of the shared closure."""
    return export(shared_closure(), _shared_directory() / compression, compression=compression)


def served(compression: str) -> dict[str, str]:
    """Return the targets of the shared cache's NARs at the upstream, and those at ncps."""
    targets = {}
    for file in shared_cache(compression).directory.glob("*.narinfo"):
        narinfo = NarInfo.parse(file.read_bytes())
        targets[f"/{narinfo.url}"] = f"/{opaque_key(narinfo.compression, narinfo.nar_hash).url}"
    return targets


class Bench(SynchronousTestCase):
    """A test case with one Nix release; its clean-up kills everything that it starts."""

    release_name: str

    def setUp(self) -> None:
        self.release = release(self.release_name)
        self.directory = temporary_directory()
        if is_kept():
            print(f"\n{self.id()}: {self.directory}")
        else:
            self.addCleanup(remove_tree, self.directory)
        self._made = 0

    def fresh_directory(self, name: str) -> Path:
        """Return a new directory's path."""
        self._made += 1
        return self.directory / f"{name}{self._made}"

    def client(self) -> NixClient:
        """Return a client that has never used Nix before."""
        return NixClient(self.release, self.fresh_directory("client"))

    def file_server(self, compression: str) -> FileServer:
        """Return a started upstream with the shared closure."""
        server = FileServer(shared_cache(compression).directory)
        server.start()
        self.addCleanup(server.stop)
        return server

    def daemon(
        self,
        *upstreams: Origin,
        public_key: str | None = None,
        options: Sequence[str] = (),
        constants: Mapping[str, float] | None = None,
    ) -> Daemon:
        """Return a started ncps over these upstreams, by default with the closure's key.

        :param constants: see `Daemon`.
        """
        key = public_key or shared_closure().public_key
        caches = [UpstreamCache(server.url, key) for server in upstreams]
        daemon = Daemon(self.fresh_directory("ncps"), caches, options=options)
        daemon.is_forked = True
        daemon.constants |= constants or {}
        self.addCleanup(daemon.kill)
        daemon.start()
        return daemon

    def install_in_background(self, client: NixClient, daemon: Daemon) -> subprocess.Popen[str]:
        """Begin to install the shared closure through ncps."""
        process = client.start_install(daemon.url, [daemon.public_key()], shared_closure().root)
        self.addCleanup(end, process)
        return process

    def install(self, daemon: Daemon) -> NixClient:
        """Install the shared closure with a new client through ncps and check all of it."""
        client = self.client()
        client.install(daemon.url, [daemon.public_key()], shared_closure().root)
        self.check(client, daemon)
        return client

    def check(self, client: NixClient, daemon: Daemon) -> None:
        """Check that a client has the whole closure, byte for byte, signed by ncps."""
        closure = shared_closure()
        client.verify([daemon.public_key()], closure.root)
        self.assertEqual(sorted(closure.paths), sorted(client.closure(closure.root)))
        self.assertEqual(closure.fingerprint(closure.client), closure.fingerprint(client))

    def check_store(self, daemon: Daemon, compression: str) -> None:
        """Check that every NAR in ncps' store equals that of the upstream."""
        upstream = shared_cache(compression).directory
        files = {ours: upstream / theirs[1:] for theirs, ours in served(compression).items()}
        for path in daemon.stored_nars():
            there = files[f"/nar/{path.name}"].read_bytes()
            self.assertEqual(there, path.read_bytes(), path.name)
