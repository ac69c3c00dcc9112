"""Upkeep of the store: the jobs that limit its size and correct its counters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from twisted.logger import Logger

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Adapters, Foundation
from ncps.cache.core import Core
from ncps.cache.nar.quarantine import LOOK_S
from ncps.cache.upkeep.evict import Bounds, Eviction
from ncps.cache.upkeep.orphans import FIRST_S, INTERVAL_S, Orphans
from ncps.cache.upkeep.realisations import LOOK_S as REALISATIONS_S
from ncps.cache.upkeep.realisations import UnusedRealisations
from ncps.cache.upkeep.schedule import Appointments, Cron, Every, Schedule
from ncps.cache.upkeep.strays import Strays
from ncps.cache.world import World
from ncps.errors import Refused
from ncps.settings.kinds.schedule import LOCAL, ScheduleSetting
from ncps.settings.schema.tree import Settings

CHECK_S = 60.0
"""Seconds between two checks of the size, since other processes store NARs, too."""
SWEEP = "sweep"
"""Name of the lease of the process that searches the whole store."""
LEFTOVERS_S = 900.0
"""Seconds between two searches for unfinished files of workers and replicas that have died."""
LEFT_FOR_S = 600.0
"""Age from which such a file is removed, in seconds."""
_log = Logger()
_LOCALTIME = Path("/etc/localtime")


def upkeep(
    world: World, base: Foundation, *, core: Core, may_sweep: Callable[[], bool]
) -> tuple[Ticker, ...]:
    """Return the background jobs of the store; the owner of the tasks runs them.

    Raises Refused if the machine's time zone is not known.

    :param may_sweep: whether no other catalog uses the store, so that unknown objects are orphans.
    """
    clock = world.clock
    orphans = _orphans(world, base, core)
    strays = _strays(world, base, core)

    async def sweep() -> None:
        if may_sweep():
            await orphans.sweep()
            await strays.sweep()

    sweeps = Appointments(
        clock, Every(INTERVAL_S), alone(world.leases, SWEEP, sweep), first_s=FIRST_S
    )
    tickers = [
        Ticker(clock, "recount", orphans.recount, INTERVAL_S),
        Ticker(clock, "sweep", sweeps.tick, sweeps.pause_s),
        Ticker(clock, "quarantine", core.quarantine.check, LOOK_S),
        Ticker(clock, "leftovers", partial(sweep_leftovers, base.parts), LEFTOVERS_S),
    ]
    unused = UnusedRealisations(world, core.realisations.records)
    tickers.append(Ticker(clock, "realisations", unused.look, REALISATIONS_S))
    cache = base.settings.cache
    if not cache.max_size_bytes:
        return tuple(tickers)
    eviction = _eviction(world, base, core)
    core.publication.watch(eviction.stored)
    tickers.append(Ticker(clock, "size", eviction.check, CHECK_S))
    if cache.lru.schedule:
        schedule = schedule_of(cache.lru.schedule, cache.lru.timezone)
        runs = Appointments(clock, schedule, eviction.run)
        tickers.append(Ticker(clock, "schedule", runs.tick, runs.pause_s))
    return tuple(tickers)


def _orphans(world: World, base: Foundation, core: Core) -> Orphans:
    return Orphans(
        world,
        core.narinfos,
        core.state.uses,
        grace_s=base.settings.cache.lru.orphan_grace_s,
    )


def _strays(world: World, base: Foundation, core: Core) -> Strays:
    return Strays(
        clock=world.clock,
        catalog=world.inventory,
        store=world.narinfos,
        leases=world.leases,
        grace_s=base.settings.cache.lru.orphan_grace_s,
        keep_beside=core.records.keep_beside,
    )


def _eviction(world: World, base: Foundation, core: Core) -> Eviction:
    return Eviction(
        world,
        core.narinfos,
        core.state.uses,
        is_arriving=core.nars.is_arriving,
        bounds=bounds(base.settings),
    )


async def sweep_leftovers(parts: Adapters) -> None:
    """Remove unfinished files of processes that died. Raises Unavailable if that fails."""
    *_, threads = parts.workers, *parts.stores.threads  # the store's own threads, if it has any
    count = await threads.run(parts.stores.sweep, LEFT_FOR_S)
    if count:
        _log.info("removed {count} unfinished files of dead processes", count=count)


def bounds(settings: Settings) -> Bounds:
    """Return the limits of the size of the store."""
    high = settings.cache.max_size_bytes
    lru = settings.cache.lru
    return Bounds(
        high=high,
        low=high * lru.low_mark // 100,
        grace_s=lru.grace_s,
        keeps_only_copies=not lru.evict_uploads,
    )


def schedule_of(
    setting: ScheduleSetting,
    timezone: str,
    *,
    environ: Mapping[str, str] = os.environ,
    localtime: Path = _LOCALTIME,
) -> Schedule:
    """Make the schedule of a setting. Raises Refused if the machine's time zone is not known.

    :param timezone: used if the setting itself names none.
    """
    if not setting.cron:
        return Every(setting.every_s)
    name = setting.zone or timezone
    return Cron(setting.cron, local_zone(environ, localtime) if name == LOCAL else ZoneInfo(name))


def local_zone(environ: Mapping[str, str], localtime: Path) -> tzinfo:
    """Return the machine's time zone, with its summer time. Raises Refused if it is not known."""
    name = environ.get("TZ")
    try:
        if name is not None:
            name = name.removeprefix(":")
            return UTC if not name else _zone(name)
        if not localtime.exists():  # glibc then uses UTC, too
            return UTC
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, LOCAL)
    except (KeyError, ValueError, OSError) as error:
        where = f"TZ={name}" if name is not None else str(localtime)
        raise Refused(
            f"{where} does not say the time zone of this machine: name it in"
            " cache-lru-schedule-timezone, such as Europe/Berlin"
        ) from error


def _zone(name: str) -> ZoneInfo:
    if not name.startswith("/"):
        return ZoneInfo(name)
    with Path(name).open("rb") as file:
        return ZoneInfo.from_file(file, LOCAL)
