"""The line that `systemctl status` shows: addresses, NARs in the store, problems."""

from __future__ import annotations

from attrs import define

from ncps.assembly.role import Role
from ncps.assembly.systemd import status
from ncps.cache.answers import Cache
from ncps.cache.readiness import OK
from ncps.ports import Totals

_GIB = 1024**3


@define(eq=False)
class StatusLine:
    """The status of one process.

    :ivar addresses: the addresses at which it serves; empty before.
    :ivar totals: the last counts of the catalog; None before the first count.
    """

    role: Role
    addresses: str = ""
    totals: Totals | None = None
    trouble: str = ""
    _sent_line: str = ""

    @property
    def line(self) -> str:
        """The line of sd_notify(3) that sets the status."""
        parts = [f"Serving {self.addresses}" if self.addresses else "Starting"]
        if self.totals is not None:
            size = self.totals.bytes_stored / _GIB
            parts.append(f"{self.totals.nars_stored} NARs, {size:.1f} GiB")
        return status("; ".join([*parts, self.trouble or "all is well"]))

    async def tell(self, cache: Cache) -> None:
        """Send the line to systemd if it has changed."""
        parts = (await cache.readiness()).parts
        self.trouble = "; ".join(f"{part}: {state}" for part, state in parts.items() if state != OK)
        if self.line != self._sent_line:
            self._sent_line = self.line
            self.role.tell(self.line)
