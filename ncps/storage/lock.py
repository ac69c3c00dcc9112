"""The lock on a store's directory: one daemon at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ncps.aio.lockfile import LockFile

_OTHER: Final = "a directory of its own by cache-storage-local"


class StoreLock(LockFile):
    """The lock file of a store; a daemon holds it for all its writes. `Tree.probe` comes first."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "store" / "ncps.lock", f"the store in {root}", _OTHER)
