"""DegradedGrants: leases that only this process knows, while the backend is away."""

from __future__ import annotations

import time
from collections.abc import Callable


class DegradedGrant:
    """A lease that no other process knows of; see `ncps.locks.shared.Grant`."""

    is_lost = False

    def __init__(self, grants: DegradedGrants, name: str, fence: int) -> None:
        self.fence = fence
        self._grants = grants
        self._name = name

    async def give_back(self) -> None:
        """Forget the grant."""
        self._grants.forget(self._name, self)


class DegradedGrants:
    """Grants without a backend; several processes may have the same name at the same time.

    :param address: the address of this process for others.
    :param wall: returns seconds since 1970; fences are this time, so they exceed earlier ones.
    """

    def __init__(self, *, address: str = "", wall: Callable[[], float] = time.time) -> None:
        self.address = address
        self._wall = wall
        self._held: dict[str, DegradedGrant] = {}
        self._last_fence = 0

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def take(self, name: str) -> DegradedGrant:
        """Grant a name; the caller asks for each name only once at a time."""
        self._last_fence = max(self._last_fence + 1, int(self._wall() * 1e6))
        return self._held.setdefault(name, DegradedGrant(self, name, self._last_fence))

    def forget(self, name: str, grant: DegradedGrant) -> None:
        """Forget a grant that was given back."""
        if self._held.get(name) is grant:
            del self._held[name]
