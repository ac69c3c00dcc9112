"""Pins and removals, joined from their parts."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Foundation
from ncps.assembly.upkeep import bounds
from ncps.cache.closures.pin_backup import PinBackup
from ncps.cache.closures.pinning import Pinning
from ncps.cache.closures.removing import Removing
from ncps.cache.closures.room import PinnedRoom
from ncps.cache.core import Core
from ncps.cache.world import World

LOOK_S = 60.0
"""Seconds between two rounds of upkeep, and between two counts."""


@frozen(kw_only=True)
class Closures:
    """Pins and removals of a process.

    :ivar backup: the copy of pins and blocked paths in the store.
    :ivar room: the part of the store that pinned NARs use.
    """

    backup: PinBackup
    pinning: Pinning
    removing: Removing
    room: PinnedRoom

    def tickers(self, world: World) -> Iterator[Ticker]:
        """Yield the background jobs, which the owner of the tasks runs."""
        upkeep = alone(world.leases, "pins", self.pinning.look_after)
        yield Ticker(world.clock, "pins", upkeep, LOOK_S)
        yield Ticker(world.clock, "count of pins", self.room.look, LOOK_S)


def closures(world: World, base: Foundation, core: Core) -> Closures:
    """Make pins and removals; nothing runs yet."""
    limits = bounds(base.settings)
    backup = PinBackup(world, base.parts.stores.config)
    return Closures(
        backup=backup,
        pinning=Pinning(world, core.narinfos, core.nars, core.running, backup),
        removing=Removing(world, core.state.board, core.running, backup),
        room=PinnedRoom(world, high=limits.high, low=limits.low),
    )
