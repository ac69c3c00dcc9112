"""The signatures on the narinfos of a daemon."""

from __future__ import annotations

from ncps.nix.keys import PublicKey, Signature
from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.stage import Stage


class SigningStage(Stage):
    """A stage with one upstream, to which paths are added."""

    upstream: Origin

    def signers(self, daemon: Daemon, path: StorePath, *keys: str) -> set[str]:
        """Return which of these keys sign a served narinfo."""
        lines = self.narinfo(daemon, path).body.decode().splitlines()
        signatures = [Signature.parse(line[5:]) for line in lines if line.startswith("Sig: ")]
        message = path.fingerprint.encode()
        return {key for key in keys for s in signatures if PublicKey.parse(key).verify(message, s)}

    def added(self) -> StorePath:
        """Add a path to the upstream and return it."""
        path = self.cache.add()
        self.cache.mount_path(self.upstream, path)
        return path
