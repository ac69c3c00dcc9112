"""The lock on a store's directory: one daemon at a time."""

from __future__ import annotations

from pathlib import Path

from ncps.aio.lockfile import LockFile


class StoreLock(LockFile):
    """Held from before the first write to after the last; the directory must have been probed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "store" / "ncps.lock", f"the store in {root}")
