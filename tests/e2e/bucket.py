"""The program with its store in a bucket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from tests.e2e.daemon import Daemon, UpstreamCache
from tests.integration.servers.radosgw import RadosGW


class BucketDaemon(Daemon):
    """`ncps serve` on a bucket; its own directory has the database and the spools."""

    def __init__(
        self,
        directory: Path,
        upstreams: Sequence[UpstreamCache],
        *,
        server: RadosGW,
        bucket: str,
        options: Sequence[str] = (),
    ) -> None:
        self.server = server
        self.bucket = bucket
        super().__init__(directory, upstreams, options=options)

    def command(self) -> list[str]:
        """Return the command line."""
        command = super().command()
        at = command.index("--cache-storage-local")
        secret = self.directory / "secret"
        if not secret.exists():  # several commands may be made at the same time
            written = secret.with_name(f"secret.{uuid4().hex}")
            written.write_text(f"{self.server.secret_key}\n")
            written.replace(secret)
        command[at : at + 2] = [
            *("--cache-storage-s3-bucket", self.bucket),
            *("--cache-storage-s3-endpoint", self.server.endpoint),
            *("--cache-storage-s3-access-key-id", self.server.access_key),
            *("--cache-storage-s3-secret-access-key-file", str(secret)),
            "--cache-storage-s3-force-path-style",
        ]
        return command

    def stored_nars(self) -> list[Path]:
        """Return the keys of NARs in the bucket as paths."""
        status, body = self.server.request(
            "GET", f"/{self.bucket}", query="list-type=2&prefix=store%2Fnar%2F"
        )
        if status != 200:
            raise AssertionError(f"no listing: {status} {body!r}")
        return [Path(part.partition("<")[0]) for part in body.decode().split("<Key>")[1:]]
