"""Admission: whether a download may begin, and whether there is room to keep what it brings.

    begin --(too many run)-----------------------------> Busy
      |
    admit --(spools hold too much, patience is over)---> Busy
      |
    room  --(the disk would go below the reserve)------> streams through, is not kept
      |
    close

Counted is not only what lies on the disk, but what was promised room there: a hundred downloads
that begin in one second all see the same free space, and only one of them may have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.errors import Busy, NcpsError
from ncps.settings.schema.cache import DownloadSettings

MIB = 1024 * 1024


class Admission:
    """Decides for each download whether it may begin, take a place on the disk, and be kept.

    :param limits: a single download may hold more than `max_spool_size_bytes`.
    :param largest: bytes that one NAR may have to be kept; 0: any number.
    :param spare: says how many bytes may be taken beyond what is to stay free; its errors count
        as "enough".
    :param reached: told of each limit that is reached, by the name of its setting.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        limits: DownloadSettings,
        spare: Callable[[], int],
        largest: int = 0,
        reached: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._spare = spare
        self._largest = largest
        self._reached = reached
        self._tickets: dict[Admitted, None] = {}
        self._waiting: deque[tuple[Admitted, Deferred[None]]] = deque()

    @property
    def running(self) -> int:
        """Downloads that run or wait."""
        return len(self._tickets)

    @property
    def in_flight(self) -> int:
        """Bytes that running downloads hold or were promised, and have not published."""
        return sum([ticket.held for ticket in self._tickets])

    def begin(self) -> Admitted:
        """Count a download in. Raises Busy if there are too many."""
        if self.running >= self._limits.max_count:
            self._reached("cache-download-max-count")
            raise Busy(f"{self.running} downloads are running already")
        ticket = Admitted(self)
        self._tickets[ticket] = None
        return ticket

    def too_large(self, size: int) -> str:
        """Say why a NAR of so many bytes is not kept once it has arrived, or nothing.

        It lies on the disk while it does, so that it is fetched once for all who want it then.
        """
        if not self._largest or size <= self._largest:
            return ""
        self._reached("cache-max-size")
        return f"its {size} bytes are more than the store may hold, {self._largest}"

    async def _admit(self, ticket: Admitted) -> None:
        if self._waiting or not self._has_place(ticket):
            turn: Deferred[None] = Deferred()
            entry = ticket, turn
            self._waiting.append(entry)
            try:
                await turn.addTimeout(self._limits.queue_timeout_s, self._clock)
            except DeferredTimeout:
                self._reached("cache-download-max-spool-size")
                raise Busy(f"unfinished downloads hold {self.in_flight // MIB} MiB") from None
            finally:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    self._move_up()
        ticket.is_admitted = True

    def _has_place(self, ticket: Admitted) -> bool:
        held, most = self.in_flight, self._limits.max_spool_size_bytes
        return not most or not held or held + (ticket.size or 0) <= most

    def _move_up(self) -> None:
        """Admit who waits, in order: a large one is not starved by small ones."""
        while self._waiting and self._has_place(self._waiting[0][0]):
            ticket, turn = self._waiting.popleft()
            ticket.is_admitted = True
            turn.callback(None)

    def _room(self, ticket: Admitted, size: int) -> str:
        try:
            spare = self._spare()
        except NcpsError:
            return ""
        promised = sum([other.due for other in self._tickets if other is not ticket])
        if spare - promised - size >= 0:
            return ""
        self._reached("cache-storage-min-free")
        return (
            f"{size // MIB} MiB more would leave less than is to stay free: {max(0, spare) // MIB}"
            f" MiB may be taken, {promised // MIB} of them promised to other downloads"
        )

    def _closed(self, ticket: Admitted) -> None:
        self._tickets.pop(ticket, None)
        self._move_up()


class Admitted:
    """The share of one download.

    :ivar size: of the whole, if known.
    :ivar is_admitted: whether it has waited its turn.
    """

    def __init__(self, admission: Admission) -> None:
        self.size: int | None = None
        self.is_admitted = False
        self._is_kept = True
        self._has_room = False
        self._written: Callable[[], int] | None = None
        self._admission = admission

    @property
    def held(self) -> int:
        """Bytes of spool that are its own, written or not."""
        if not (self.is_admitted and self._is_kept):
            return 0
        return max(self.size or 0, self._length)

    @property
    def due(self) -> int:
        """Bytes that it was given room for and will still write."""
        return self.held - self._length if self._has_room else 0

    @property
    def _length(self) -> int:
        return 0 if self._written is None else self._written()

    async def admit(self, size: int | None) -> None:
        """Wait until the spools have a place for `size` bytes (None: unknown). Raises Busy."""
        self.size = size
        await self._admission._admit(self)

    def room(self, size: int | None) -> str:
        """Take room on the disk for a new spool; return why there is none, or nothing."""
        self.size = size
        self._written = None
        why = self._admission._room(self, size or 0)
        self._is_kept = self._has_room = not why
        if why:
            self._admission._move_up()
        return why

    def follow(self, written: Callable[[], int]) -> None:
        """Say how the spool that has the room tells its length."""
        self._written = written

    def close(self) -> None:
        """The download has ended, and what it held is published or gone; idempotent."""
        self._admission._closed(self)
