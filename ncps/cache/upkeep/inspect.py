"""Inspection: verifies in the background stored NARs that were never looked into.

No narinfo describes a file that was fetched by its name alone. Files are not looked into while they
arrive where that would not keep pace, or where the settings say so. The rate is bounded, so that
the check never takes much of a core.
"""

from __future__ import annotations

from ncps.cache.nar.verify import Verifier
from ncps.codec import CODECS
from ncps.nix.narurl import NarKey
from ncps.ports import Catalog

BATCH = 10


class Inspection:
    """Goes through the NARs that are not verified yet.

    :param bytes_per_second: of stored files, on the average; 0 inspects nothing.
    """

    def __init__(self, *, catalog: Catalog, verifier: Verifier, bytes_per_second: int) -> None:
        self._catalog = catalog
        self._verifier = verifier
        self._rate = bytes_per_second

    async def run(self) -> None:
        """Verify all NARs that are not verified now. Raises Unavailable if that cannot go on.

        One that stays unverified, since to unpack it takes too much memory, is read once.
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
