"""The bucket of a storm: damage to it, and its objects and rows at the end."""

from __future__ import annotations

import hashlib
import http.client
from random import Random

from tests.chaos.audit import ROWS, Stored, hashed
from tests.chaos.damage import Place
from tests.chaos.world import World
from tests.cluster.replicas import Backends

NARS, QUARANTINE = "store/nar/", "store/quarantine/"


class Bucket(Place):
    """The objects of several replicas. OSError while the server is away.

    :param name: of the bucket.
    :param world: knows the right bytes; an object with wrong bytes may have their digest.
    """

    def __init__(self, backends: Backends, name: str, world: World) -> None:
        self._s3 = backends.s3
        self._name = name
        self._world = world

    def _request(
        self,
        method: str,
        name: str,
        body: bytes = b"",
        metadata: dict[str, str] | None = None,
    ) -> bytes:
        path = f"/{self._name}/{NARS}{name[0]}/{name[:2]}/{name}"
        try:
            status, found = self._s3.request(method, path, body=body, metadata=metadata)
        except http.client.HTTPException as error:
            raise OSError(f"no answer: {error}") from error
        if status not in {200, 204}:
            raise OSError(f"{method} {name}: {status}")
        return found

    def stored(self) -> list[str]:
        return sorted(key.rpartition("/")[2] for key in self._s3.sizes(self._name, NARS))

    def read(self, name: str) -> bytes:
        return self._request("GET", name)

    def delete(self, name: str) -> None:
        self._request("DELETE", name)

    def truncate(self, name: str, size: int) -> None:
        self._request("PUT", name, self.read(name)[:size])

    def put(self, name: str, content: bytes, chance: Random) -> None:
        """Write an object, with the digest of the right bytes, or with none."""
        named = self._world.named(f"nar/{name}")
        metadata = {}
        if named is not None and chance.random() < 0.5:
            metadata["sha256"] = hashlib.sha256(named[1][0]).hexdigest()
        self._request("PUT", name, content, metadata)

    def set_aside(self) -> int:
        """Return the number of objects in the quarantine."""
        return len(self._s3.sizes(self._name, QUARANTINE))


def in_bucket(bucket: Bucket, backends: Backends, database: str) -> Stored:
    """Read a bucket and a database that no daemon uses any more."""
    files = {name: bucket.read(name) for name in bucket.stored()}
    rows = [tuple(row) for row in backends.database.execute(ROWS, database)]
    return Stored(hashed(files), rows, bucket.set_aside())
