"""Paths: which store paths the URLs that were handed out belong to.

A narinfo that is asked for anew may name another URL, and then the catalog knows no narinfo of the
old one. Who still has the old one must be answered all the same, also from other upstreams, and
those are asked by the store path's hash.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ncps.nix.narurl import NarKey

MAX_KEYS: Final = 50_000


class Paths:
    """Remembers a digest by NAR key; the oldest go first."""

    def __init__(self) -> None:
        self._digests: OrderedDict[NarKey, str] = OrderedDict()

    def note(self, key: NarKey, digest: str) -> None:
        """A narinfo of this hash part names this NAR."""
        self._digests[key] = digest
        self._digests.move_to_end(key)
        while len(self._digests) > MAX_KEYS:
            self._digests.popitem(last=False)

    def of(self, key: NarKey) -> set[str]:
        """Return the hash part last noted, if any."""
        digest = self._digests.get(key)
        return set() if digest is None else {digest}
