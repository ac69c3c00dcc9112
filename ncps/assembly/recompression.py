"""Recompression, joined from its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from ncps.aio.tasks import Ticker
from ncps.assembly.leases import alone
from ncps.assembly.parts import Foundation
from ncps.cache.core import Core
from ncps.cache.recompress.convert import Converter
from ncps.cache.recompress.idle import Idleness
from ncps.cache.recompress.make import TwinMaker, TwinRules
from ncps.cache.recompress.remake import TwinRemaker
from ncps.cache.recompress.work import (
    COMPRESSIONS,
    LEASE,
    LOOK_S,
    REPLACED_LEASE,
    REPLACED_S,
    REUSED_S,
    Originals,
    Recompressing,
)
from ncps.cache.world import World
from ncps.ports import TwinCandidates
from ncps.process import machine
from ncps.process.transcoder import ChildTranscoder
from ncps.settings.schema.recompress import RecompressSettings

LEAST_MEMORY: Final = 512 << 20
"""Bytes of memory that are available while the machine counts as idle, at least."""
NEEDS_MAINS: Final = True
"""Whether a machine that runs on its battery never counts as idle."""


def recompression_jobs(world: World, base: Foundation, core: Core) -> Iterator[Ticker]:
    """Yield the background jobs of twins, and let the core make lost twins again.

    If recompression is off, existing twins are still maintained.
    """
    settings = base.settings.cache.recompress
    new_file = partial(base.parts.stores.spools.create, "spool")
    converter = Converter(
        world,
        read=core.nars.read,
        transcoder=ChildTranscoder(base.reactor, world.threads, new_file),
        threads=settings.threads,
        cpu_share=settings.cpu_share / 100,
    )
    core.nars.remake = TwinRemaker(world, converter, core.records, core.verifier.verify).remake
    maker = TwinMaker(
        world,
        converter,
        core.records,
        core.state.board,
        TwinRules(level=settings.level, max_growth=settings.max_growth),
    )
    brief_s = min(settings.keep_s, base.settings.cache.lru.grace_s)
    originals = Originals(
        world,
        core.narinfos,
        core.state.uses,
        is_arriving=core.nars.is_arriving,
        stays_s=lambda: settings.keep_s if converter.has_room(0) else brief_s,
    )
    look_s = min(REPLACED_S, max(1.0, settings.keep_s / 4))
    check = alone(world.leases, REPLACED_LEASE, originals.check)
    yield Ticker(world.clock, "NARs replaced by zstd", check, look_s)
    if settings.to == "off":
        return
    idleness = _idleness(base, core, lambda: converter.has_room(0))
    work = Recompressing(world, maker, core.verifier, idleness, _wanted(settings))
    run = alone(world.leases, LEASE, work.run)

    async def look() -> None:
        if work.may_run():  # so that a busy process never asks for the lease
            await run()

    yield Ticker(world.clock, "recompression", look, LOOK_S)


def _wanted(settings: RecompressSettings) -> TwinCandidates:
    return TwinCandidates(
        compressions=COMPRESSIONS,
        min_size=settings.min_size_bytes,
        reused_s=REUSED_S if settings.nars == "reused" else None,
    )


def _idleness(base: Foundation, core: Core, has_room: Callable[[], bool]) -> Idleness:
    """Make the part that decides whether the machine is idle."""
    settings = base.settings.cache.recompress

    def may_work() -> bool:
        is_hour = settings.hours.has(time.localtime().tm_hour)
        is_gain = settings.to != "auto" or core.nars.readers.are_slow
        return is_gain and is_hour and not core.nars.arriving and has_room() and _has_power()

    return Idleness(
        base.reactor,
        load=machine.load,
        used=time.process_time,
        may_work=may_work,
        most=len(os.sched_getaffinity(0)) * settings.max_load / 100,
        own=min(1.0 + settings.threads, settings.cpu_share / 100),
    )


def _has_power() -> bool:
    """Whether the machine has memory and electricity to spare."""
    memory = machine.available_memory()
    if memory is not None and memory < LEAST_MEMORY:
        return False
    return not (NEEDS_MAINS and machine.is_on_battery())
