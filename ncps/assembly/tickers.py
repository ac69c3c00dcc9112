"""Tickers: the jobs that a process repeats, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from ncps.aio.allocator import GIVE_BACK_S, give_back_blocking
from ncps.aio.tasks import Ticker
from ncps.assembly import mending
from ncps.assembly.access import AccessControl
from ncps.assembly.core import WorkingCache
from ncps.assembly.leases import Locking, alone
from ncps.assembly.parts import Foundation
from ncps.assembly.status import StatusLine
from ncps.auth.tokens import LOOK_S
from ncps.cache.extras.kept import EXTRAS_S
from ncps.cache.upkeep.agreement import Agreement
from ncps.observe import logs

TOTALS_S = 30.0
ROOM_S = 2.0
REPEATS_S = 5.0
USES_S = 60.0
EXPIRY_S = 60.0
"""Seconds for which memory may be outdated after a notice of another process was lost."""
INSPECTION_S = 10.0
CLOCK_S = 60.0
SHARING_S = 15.0
REPLICAS_S = 15.0


def tickers(
    base: Foundation,
    working: WorkingCache,
    locking: Locking,
    agreement: Agreement,
    access: AccessControl,
    status: StatusLine,
) -> Iterator[Ticker]:
    """Yield all tickers; the owner of the tasks runs them."""
    settings, parts = base.settings, base.parts

    async def count() -> None:
        totals = await parts.catalog.totals()
        base.metrics.set_totals(totals, settings.cache.max_size_bytes)
        status.totals = totals
        await status.tell(working.cache)

    async def tell_repeats() -> None:
        logs.tell_repeats()

    in_thread, state = partial(partial, parts.workers.run), working.core.state
    work: list[tuple[str, Callable[[], Coroutine[Any, Any, None]], float]] = [
        ("totals", count, TOTALS_S),
        ("repeated lines of the log", tell_repeats, REPEATS_S),
        ("room", in_thread(parts.stores.room.look_blocking), ROOM_S),
        ("free memory", in_thread(give_back_blocking), GIVE_BACK_S),
        ("clock", working.skew.look, CLOCK_S),
        ("mending", working.mending.look, mending.LOOK_S),
        ("replicas", agreement.look, REPLICAS_S),
        ("inspection", alone(locking.leases, "inspection", working.inspection.run), INSPECTION_S),
        ("times of use", state.uses.flush, USES_S),
        ("extras", working.extras.kept.check, EXTRAS_S),
        ("tokens", access.tokens.look, LOOK_S),
        ("times of use of tokens", access.tokens.flush, USES_S),
    ]
    if settings.cache.database_url.is_file:
        work.append(("sharing", working.sharing.look, SHARING_S))
    if locking.shared is not None:
        work.append(("memory", state.board.expire, EXPIRY_S))
    for name, function, interval_s in work:
        yield Ticker(base.reactor, name, function, interval_s)
    yield from working.upkeep
