"""Clients that build.

Nix builds nothing in a store that lies elsewhere than its paths say, so each of them sees a
directory of its own as /nix.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.bench import Bench
from tests.e2e.nixclient import NixClient
from tests.services import require

WRAP = 'mount --bind "$0" /nix && exec "$@"'


class Building(Bench):
    """A test case whose clients can build.

    :ivar build_options: for each build.
    """

    build_options: tuple[str, ...] = ()

    def builder(self) -> NixClient:
        """Return a client that can build: in a mount namespace with a /nix of its own."""
        kinds = ("-m",) if os.geteuid() == 0 else ("-U", "-r", "-m")
        if os.geteuid() == 0:
            Path("/nix").mkdir(exist_ok=True)
        client = self.client()
        nix = self.fresh_directory("nix")
        nix.mkdir()
        client.wrapper = ("unshare", *kinds, "/bin/sh", "-c", WRAP, str(nix))
        works = subprocess.run([*client.wrapper, "/bin/true"], capture_output=True, check=False)
        require(works.returncode == 0, "right to mount a directory as /nix (unshare)")
        return client
