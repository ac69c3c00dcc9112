"""Upkeep of the store: what keeps it small and its books right, and when."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from attrs import frozen
from twisted.logger import Logger

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Adapters
from ncps.cache.core import Core
from ncps.cache.nar.quarantine import LOOK_S
from ncps.cache.upkeep.evict import Bounds, Eviction, EvictionTally
from ncps.cache.upkeep.orphans import FIRST_S, INTERVAL_S, Orphans, Swept
from ncps.cache.upkeep.schedule import Appointments, Cron, Every, Schedule
from ncps.cache.upkeep.strays import Strays
from ncps.cache.world import World
from ncps.errors import Refused
from ncps.observe.metrics import Metrics
from ncps.settings.eviction import LOCAL, ScheduleSetting
from ncps.settings.schema.tree import Settings

CHECK_S = 60.0
"""How often the size is looked at, whoever stored something."""
SWEEP = "sweep"
"""Name of the lease of the process that goes through the whole store."""
LEFTOVERS_S = 900.0
"""How often is looked for unfinished files of workers and replicas that have died."""
LEFT_FOR_S = 600.0
"""How long such a file must have lain there."""
_log = Logger()
_LOCALTIME = Path("/etc/localtime")


@frozen(kw_only=True)
class Upkeep:
    """What is done for the store in the background.

    :ivar eviction: None where the store may have any size.
    :ivar tickers: to be run by whoever owns the tasks.
    """

    eviction: Eviction | None
    tickers: tuple[Ticker, ...]


def upkeep(
    world: World,
    settings: Settings,
    parts: Adapters,
    counters: Metrics,
    *,
    core: Core,
    may_sweep: Callable[[], bool],
) -> Upkeep:
    """Make it; nothing runs yet. Raises Refused if the machine's time zone cannot be told.

    :param may_sweep: whether what the catalog does not know may be taken for nobody's.
    """
    clock, uses = world.clock, core.state.uses
    orphans = Orphans(
        world,
        core.narinfos,
        uses,
        grace_s=settings.cache.lru.orphan_grace_s,
        swept=lambda swept: _count_orphans(counters, swept),
    )
    strays = Strays(
        clock=clock,
        catalog=world.inventory,
        store=world.narinfos,
        leases=world.leases,
        grace_s=settings.cache.lru.orphan_grace_s,
        keep_beside=core.narinfos.keep_beside,
    )

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
        Ticker(clock, "leftovers", partial(sweep_leftovers, parts), LEFTOVERS_S),
    ]
    if not settings.cache.max_size_bytes:
        return Upkeep(eviction=None, tickers=tuple(tickers))
    eviction = Eviction(
        world,
        core.narinfos,
        uses,
        is_arriving=core.nars.is_arriving,
        bounds=_bounds(settings),
        ended=lambda tally: _count_run(counters, tally),
    )
    tickers.append(Ticker(clock, "size", eviction.check, CHECK_S))
    if settings.cache.lru.schedule:
        schedule = schedule_of(settings.cache.lru.schedule, settings.cache.lru.timezone)
        runs = Appointments(clock, schedule, eviction.run)
        tickers.append(Ticker(clock, "schedule", runs.tick, runs.pause_s))
    return Upkeep(eviction=eviction, tickers=tuple(tickers))


async def sweep_leftovers(parts: Adapters) -> None:
    """Remove what processes that died meanwhile have left unfinished. Unavailable."""
    *_, threads = parts.workers, *parts.stores.threads  # the store's own, where it has some
    count = await threads.run(parts.stores.sweep, LEFT_FOR_S)
    if count:
        _log.info("removed {count} unfinished files of dead processes", count=count)


def _bounds(settings: Settings) -> Bounds:
    high = settings.cache.max_size_bytes
    lru = settings.cache.lru
    return Bounds(high=high, low=high * lru.low_mark // 100, grace_s=lru.grace_s)


def _count_run(counters: Metrics, tally: EvictionTally) -> None:
    counters.lru_runs.inc()
    counters.lru_nars.inc(tally.nars)
    counters.lru_narinfos.inc(tally.narinfos)
    counters.lru_freed.inc(tally.freed)
    counters.lru_seconds.observe(tally.seconds)


def _count_orphans(counters: Metrics, swept: Swept) -> None:
    counters.orphans.inc(swept.objects)
    counters.orphans_freed.inc(swept.freed)


def schedule_of(
    setting: ScheduleSetting,
    timezone: str,
    *,
    environ: Mapping[str, str] = os.environ,
    localtime: Path = _LOCALTIME,
) -> Schedule:
    """Make the schedule of a setting. Refused: the machine's time zone cannot be told.

    :param timezone: counts where the setting itself names none.
    """
    if not setting.cron:
        return Every(setting.every_s)
    name = setting.zone or timezone
    return Cron(setting.cron, local_zone(environ, localtime) if name == LOCAL else ZoneInfo(name))


def local_zone(environ: Mapping[str, str], localtime: Path) -> tzinfo:
    """The machine's time zone, summer time included. Refused."""
    name = environ.get("TZ")
    try:
        if name is not None:
            name = name.removeprefix(":")
            return UTC if not name else _zone(name)
        if not localtime.exists():  # so says glibc
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
