"""Every stock Nix client installs from a cache that has recompressed its NARs."""

from __future__ import annotations

from tests.e2e.bench import Bench, shared_closure
from tests.e2e.daemon import Daemon, fetch
from tests.twins import CONSTANTS, OPTIONS
from tests.waiting import wait_until

SMALL_TOO = (
    *("--cache-recompress-min-size", "1B"),
    *("--cache-recompress-max-growth", "1000"),
)
"""The paths of the closure are tiny, so that their zstd files may be larger."""
LONG_S = 180.0


class Recompressions(Bench):
    """Tests for every client."""

    def is_done(self, daemon: Daemon) -> bool:
        """Return whether the narinfos of all paths name zstd files."""
        for path in shared_closure().paths:
            digest = path.rpartition("/")[2][:32]
            lines = fetch(f"{daemon.url}/{digest}.narinfo").body.decode().splitlines()
            if "Compression: zstd" not in lines:
                return False
        return True

    def test_recompressed_closure_arrives_without_upstream(self) -> None:
        """Nix accepts the same signatures with other files, and verifies the installed paths."""
        server = self.file_server("xz")
        daemon = self.daemon(server, options=(*OPTIONS, *SMALL_TOO), constants=CONSTANTS)
        self.install(daemon)
        wait_until(lambda: self.is_done(daemon), "the new files", deadline=LONG_S, daemon=daemon)
        server.stop()
        keys, root = [daemon.public_key()], shared_closure().root
        self.install(daemon)
        client = self.client()
        client.copy(daemon.url, keys, root)
        self.check(client, daemon)
        daemon.stop()
