"""Inspection: verifies stored NARs that were never verified, in the background.

A file that was fetched by its name alone has no narinfo. And the NAR inside a file is not hashed
during a download if that would be too slow, or if the settings say so. The rate of reading is
bounded, so that inspection never uses much of a CPU core.
"""

from __future__ import annotations

from ncps.cache.nar.verify import Verifier
from ncps.codec import CODECS
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog

BATCH = 10


class Inspection:
    """Goes through the NARs that are not verified yet.

    :param bytes_per_second: the average rate of reading stored files; 0 inspects nothing.
    """

    def __init__(self, *, catalog: Catalog, verifier: Verifier, bytes_per_second: int) -> None:
        self._catalog = catalog
        self._verifier = verifier
        self._rate = bytes_per_second

    async def run(self) -> None:
        """Verify all NARs that are not verified. Raises Unavailable if store or catalog fail now.

        Reads a NAR only once if it stays unverified because decoding it needs too much memory.
        """
        undecided: set[NarKey] = set()
        while self._rate > 0:
            found = await self._catalog.unverified(BATCH + len(undecided), CODECS)
            batch = [nar for nar in found if nar.key not in undecided]
            if not batch:
                return
            for nar in batch:
                seen = await self._verifier.verify(nar, self._rate)
                if seen is None or seen.verified_at is None:
                    undecided.add(nar.key)
