"""A plain file server over a directory, for use as an upstream."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from tests.system.faults import Fault, Only
from tests.system.origin import Entry, Origin

TYPES = {".narinfo": "text/x-nix-narinfo", ".nar": "application/x-nix-nar"}


class FileServer(Origin):
    """Serves the files under `root`, and logs requests.

    A path can have faults: `server.spoil("/nar/x.nar", Only(Cut(1000), 1))`.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.root = root.resolve()
        self._faults: dict[str, tuple[Fault, ...]] = {}

    def spoil(self, target: str, *faults: Fault) -> None:
        """Set the faults of one path."""
        self._faults[target] = faults

    def spoil_first(self, target: str, *faults: Fault) -> None:
        """Set the faults of only the next answer of one path."""
        following = self.gets(target) + 1
        self.spoil(target, *(Only(fault, following) for fault in faults))

    def find(self, target: str) -> Entry | None:
        path = (self.root / unquote(target.partition("?")[0]).lstrip("/")).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            return None
        faults = self._faults.get(target, ())
        kind = TYPES.get(path.suffix, "application/octet-stream")
        return Entry(path.read_bytes(), (("Content-Type", kind),), lambda _request: faults)

    def repeated(self) -> dict[str, int]:
        """Return the objects with more than one request, except nix-cache-info."""
        counts = self.get_counts()
        return {
            target: count
            for target, count in counts.items()
            if count > 1 and not target.endswith("/nix-cache-info")
        }
