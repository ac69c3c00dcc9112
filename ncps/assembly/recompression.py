"""Recompression, joined from its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Foundation
from ncps.cache.core import Core
from ncps.cache.recompress.idle import Idleness
from ncps.cache.recompress.make import TwinMaker, TwinRules
from ncps.cache.recompress.press import Press
from ncps.cache.recompress.remake import TwinRemaker
from ncps.cache.recompress.work import (
    LEASE,
    LOOK_S,
    REPLACED_LEASE,
    REPLACED_S,
    Originals,
    Recompressing,
)
from ncps.cache.world import World
from ncps.process.transcoder import ChildTranscoder


def recompression_jobs(world: World, base: Foundation, core: Core) -> Iterator[Ticker]:
    """Yield the background jobs of twins, and let the core make lost twins again.

    If recompression is off, existing twins are still maintained.
    """
    settings = base.settings.cache.recompress
    new_file = partial(base.parts.stores.spools.create, "spool")
    press = Press(
        world,
        read=core.nars.read,
        transcoder=ChildTranscoder(base.reactor, world.threads, new_file),
        threads=settings.threads,
    )
    core.nars.remake = TwinRemaker(world, press, core.records, core.verifier.verify).remake
    maker = TwinMaker(
        world,
        press,
        core.records,
        core.state.board,
        TwinRules(level=settings.level, max_growth=settings.max_growth),
    )
    originals = Originals(world, core.narinfos, core.nars.is_arriving, keep_s=settings.keep_s)
    look_s = min(REPLACED_S, max(1.0, settings.keep_s / 4))
    check = alone(world.leases, REPLACED_LEASE, originals.check)
    yield Ticker(world.clock, "NARs replaced by zstd", check, look_s)
    if settings.to == "off":
        return
    work = Recompressing(
        world, maker, core.verifier, idleness(base, core), min_size=settings.min_size_bytes
    )
    yield Ticker(world.clock, "recompression", alone(world.leases, LEASE, work.run), LOOK_S)


def idleness(base: Foundation, core: Core) -> Idleness:
    """Make the part that decides whether the machine is idle."""
    settings = base.settings.cache.recompress
    return Idleness(
        base.reactor,
        load=lambda: os.getloadavg()[0],
        used=time.process_time,
        may_work=lambda: not core.nars.arriving and settings.hours.has(time.localtime().tm_hour),
        most=len(os.sched_getaffinity(0)) * settings.max_load / 100,
        own=1.0 + settings.threads,
    )
