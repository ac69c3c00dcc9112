"""Daemons for the points about databases, S3 and replicas."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import HOSTNAME, Daemon, UpstreamCache
from tests.integration.servers.radosgw import RadosGW


class SharedDaemon(Daemon):
    """A daemon whose database and store are named by flags.

    :param flags: the flags of the database, the store and other settings.
    """

    def __init__(self, directory: Path, upstreams: Sequence[UpstreamCache], *flags: str) -> None:
        super().__init__(directory, upstreams)
        self._flags = flags

    def command(self) -> list[str]:
        """Return the command line."""
        command = [
            *(sys.executable, *self.program, "serve"),
            *("--server-addr", f"127.0.0.1:{self.port}"),
            *("--cache-hostname", HOSTNAME),
            *("--cache-temp-path", str(self.directory / "tmp")),
            *self._flags,
        ]
        for upstream in self.upstreams:
            command += ["--cache-upstream-url", upstream.url]
            command += ["--cache-upstream-public-key", upstream.public_key]
        return command

    def extend(self, *flags: str) -> None:
        """Add flags; before the start."""
        self._flags += flags


def s3_flags(server: RadosGW) -> tuple[str, ...]:
    """Make a bucket; return the flags for it."""
    return (
        *("--cache-storage-s3-endpoint", server.endpoint),
        *("--cache-storage-s3-bucket", server.new_bucket()),
        *("--cache-storage-s3-region", server.region),
        *("--cache-storage-s3-access-key-id", server.access_key),
        *("--cache-storage-s3-secret-access-key", server.secret_key),
        "--cache-storage-s3-force-path-style",
    )
