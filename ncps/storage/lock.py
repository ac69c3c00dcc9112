"""The lock on a store's directory: one daemon at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ncps.aio.lockfile import LockFile

_OTHER: Final = "a directory of its own by cache-storage-local"


class StoreLock(LockFile):
    """A daemon holds it from before its first write until after its last, in a probed directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "store" / "ncps.lock", f"the store in {root}", _OTHER)
