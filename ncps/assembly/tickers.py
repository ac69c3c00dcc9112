"""Tickers: what the service does again and again, and how often."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from ncps.aio.allocator import GIVE_BACK_S, give_back_blocking
from ncps.aio.tasks import Ticker
from ncps.assembly import mending
from ncps.assembly.core import WorkingCache
from ncps.assembly.leases import Locking, alone
from ncps.assembly.parts import Adapters
from ncps.cache.upkeep.agreement import Agreement
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings

TOTALS_S = 30.0
ROOM_S = 2.0
USES_S = 60.0
EXPIRY_S = 60.0
"""How long a lost notice of another process may leave this one with what is no longer so."""
INSPECTION_S = 10.0
CLOCK_S = 60.0
SHARING_S = 15.0
REPLICAS_S = 15.0


def tickers(
    reactor: Any,
    settings: Settings,
    parts: Adapters,
    counters: Metrics,
    working: WorkingCache,
    agreed: Locking,
    agreement: Agreement,
) -> Iterator[Ticker]:
    """Make them; nothing runs yet."""

    async def count() -> None:
        totals = await parts.catalog.totals()
        counters.set_totals(totals, settings.cache.max_size_bytes)

    in_thread, state = partial(partial, parts.workers.run), working.core.state
    work: list[tuple[str, Callable[[], Coroutine[Any, Any, None]], float]] = [
        ("totals", count, TOTALS_S),
        ("room", in_thread(parts.stores.room.look_blocking), ROOM_S),
        ("free memory", in_thread(give_back_blocking), GIVE_BACK_S),
        ("clock", working.skew.look, CLOCK_S),
        ("mending", working.mending.look, mending.LOOK_S),
        ("replicas", agreement.look, REPLICAS_S),
        ("inspection", alone(agreed.leases, "inspection", working.inspection.run), INSPECTION_S),
        ("times of use", state.uses.flush, USES_S),
    ]
    if settings.cache.database_url.is_file:
        work.append(("sharing", working.sharing.look, SHARING_S))
    if agreed.shared is not None:
        work.append(("memory", state.board.expire, EXPIRY_S))
    for name, function, interval_s in work:
        yield Ticker(reactor, name, function, interval_s)
    yield from working.upkeep.tickers
