"""Admission: whether a download may begin, and whether there is room to keep its bytes.

An upload only reserves its room on the disk here.

    begin --(too many run)-----------------------------> Busy
      |
    admit --(spools hold too much, patience is over)---> Busy
      |
    room  --(the disk would go below the reserve)------> streams through, is not kept
      |
    close

Room that was promised to a download counts like room that its bytes fill: a hundred downloads that
begin in one second see the same free space, and only one of them may have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.growing import Digest, Estimated, GrowingFile
from ncps.aio.spool import Spool
from ncps.aio.waiting import within
from ncps.errors import Busy, NcpsError
from ncps.settings.schema.cache import DownloadSettings

MIB = 1024 * 1024

BESIDE = 64 * MIB
"""Bytes beyond the reserve that a guess must leave free; see `ncps.aio.guess`."""

NewSmall = Callable[[int, tuple[Estimated, ...]], GrowingFile | None]


class Admission:
    """The limits of downloads: whether one may begin, have room on the disk, and be kept.

    :param limits: a single download may hold more than `max_spool_size_bytes`.
    :param largest: bytes of the largest NAR that is kept; 0: any size.
    :param spare: returns how many bytes may be written without touching the reserve; if it raises
        an error, there is enough room.
    :param new_spool: makes a spool for a size (None: unknown), digests, and a reason to keep
        nothing (empty: the spool keeps its bytes).
    :param reached: called with the setting of each limit that was reached.
    :ivar small: makes a file in memory for a download of this size; None if a spool is needed.
    :ivar reserved: bytes of `largest` that eviction cannot free, because they are pinned.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        limits: DownloadSettings,
        spare: Callable[[], int],
        new_spool: Callable[[int | None, tuple[Digest, ...], str], Spool],
        reached: Callable[[str], object],
        largest: int = 0,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._spare = spare
        self._largest = largest
        self.reserved = 0
        self._reached = reached
        self.new_spool = new_spool
        self.small: NewSmall = lambda size, digests: None
        self._tickets: dict[Admitted, None] = {}
        self._waiting: deque[tuple[Admitted, Deferred[None]]] = deque()

    def take(self, limits: DownloadSettings) -> None:
        """Apply other limits from now on. Downloads that wait keep their deadline."""
        self._limits = limits
        self._move_up()

    @property
    def most(self) -> int:
        """Downloads that may run or wait at the same time."""
        return self._limits.max_count

    @property
    def running(self) -> int:
        """Downloads that run or wait."""
        return len(self._tickets) - self.uploads

    @property
    def uploads(self) -> int:
        """Uploads that have a share of the disk."""
        return sum([ticket.is_upload for ticket in self._tickets])

    @property
    def in_flight(self) -> int:
        """Bytes that running downloads hold or were promised, and have not published."""
        return sum([ticket.held for ticket in self._tickets if not ticket.is_upload])

    def begin(self) -> Admitted:
        """Register a download. Raises Busy if too many run."""
        if self.running >= self.most:
            self._reached("cache-download-max-count")
            raise Busy(f"{self.running} downloads are running already")
        ticket = Admitted(self)
        self._tickets[ticket] = None
        return ticket

    def begin_upload(self) -> Admitted:
        """Register an upload. It does not count for the limits of downloads."""
        ticket = Admitted(self, is_upload=True)
        self._tickets[ticket] = None
        return ticket

    def has_room_beside(self, size: int) -> bool:
        """Return whether a guess of `size` bytes would delay no download of a client."""
        most, free = self._limits.max_spool_size_bytes, self.most - self.running
        if self._waiting or free <= (self.most + 1) // 2:
            return False
        if most and self.in_flight + size > most // 2:
            return False
        if self._largest and size > self._largest - self.reserved:
            return False
        return self.has_spare(size + BESIDE)

    def has_spare(self, size: int) -> bool:
        """Return whether `size` bytes are free beyond the reserve and the running downloads."""
        try:
            spare = self._spare()
        except NcpsError:
            return True
        return spare - sum([ticket.due for ticket in self._tickets]) >= size

    def is_small(self, size: int | None) -> bool:
        """Return whether a NAR of this size is published together with others, from memory."""
        return size is not None and size <= self._limits.small_size_bytes

    def too_large(self, size: int) -> str:
        """Say why a NAR of `size` bytes is not kept once it has arrived; empty if it is.

        While it arrives it lies on the disk, so that all its clients share one fetch.
        """
        if not self._largest or size <= self._largest - self.reserved:
            return ""
        self._reached("cache-max-size")
        if size <= self._largest:
            return (
                f"its {size} bytes have no room beside {self.reserved} bytes that are pinned: the"
                f" store may hold {self._largest}"
            )
        return f"its {size} bytes are more than the store may hold, {self._largest}"

    async def _admit(self, ticket: Admitted) -> None:
        if self._waiting or not self._has_place(ticket):
            turn: Deferred[None] = Deferred()
            entry = ticket, turn
            self._waiting.append(entry)
            try:
                await within(self._clock, self._limits.queue_timeout_s, turn)
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
        """Admit waiting downloads in order, so that small ones do not starve a large one."""
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
            f"{size // MIB} MiB more would leave less than the reserve: {max(0, spare) // MIB}"
            f" MiB may be taken, {promised // MIB} of them reserved for other downloads"
        )

    def _closed(self, ticket: Admitted) -> None:
        self._tickets.pop(ticket, None)
        self._move_up()


class Admitted:
    """The share of one download in the spools and the disk.

    :ivar size: bytes of the whole file, if known.
    :ivar is_admitted: whether the spools have a place for the download.
    :ivar is_upload: whether a client sends it; then it does not wait for a place.
    """

    def __init__(self, admission: Admission, *, is_upload: bool = False) -> None:
        self.size: int | None = None
        self.is_upload = self.is_admitted = is_upload
        self._is_kept = True
        self._has_room = False
        self._written: Callable[[], int] | None = None
        self._admission = admission

    @property
    def held(self) -> int:
        """Bytes of spool that belong to this download, written or not."""
        if not (self.is_admitted and self._is_kept):
            return 0
        return max(self.size or 0, self._length)

    @property
    def due(self) -> int:
        """Bytes that the download will still write into its room on the disk."""
        return self.held - self._length if self._has_room else 0

    @property
    def _length(self) -> int:
        return 0 if self._written is None else self._written()

    async def admit(self, size: int | None) -> None:
        """Wait until the spools have a place for `size` bytes (None: unknown).

        Raises Busy if they have no place in time.
        """
        self.size = size
        await self._admission._admit(self)

    def room(self, size: int | None) -> str:
        """Reserve room on the disk for a new spool; return why there is none, or an empty text."""
        self.size = size
        self._written = None
        why = self._admission._room(self, size or 0)
        self._is_kept = self._has_room = not why
        if why:
            self._admission._move_up()
        return why

    def extend(self, size: int) -> str:
        """Reserve room for a spool that grows to `size` bytes; return as `room` does."""
        why = self._admission._room(self, size - self._length)
        if not why:
            self.size = size
        return why

    def spool(self, size: int | None, digests: tuple[Digest, ...]) -> Spool:
        """Make a spool for `size` bytes; it keeps nothing if there is no room on the disk."""
        spool = self._admission.new_spool(size, digests, self.room(size))
        self.follow(lambda: spool.length)
        return spool

    def growing(self, size: int | None, digests: tuple[Estimated, ...]) -> GrowingFile:
        """Make a file for a download as `spool` does, in memory if it is small."""
        why = self.room(size)
        small = None if why or size is None else self._admission.small(size, digests)
        file = small or self._admission.new_spool(size, digests, why)
        self.follow(lambda: file.length)
        return file

    def follow(self, written: Callable[[], int]) -> None:
        """Use `written` from now on to learn the length of the spool."""
        self._written = written

    def close(self) -> None:
        """Give the share back: the bytes are published or gone; idempotent."""
        self._admission._closed(self)
