"""Invalidation: what this process tells the others of its cache, and does when it is told.

What several processes hold in memory is right as long as each hears what the others change.
Notices may be lost: after a gap everything held is dropped, and `expire` drops it from time to time
in any case, so that a lost notice is outlived.
"""

from __future__ import annotations

from twisted.logger import Logger

from ncps.aio.recent import RecentSet
from ncps.aio.tasks import Tasks
from ncps.cache.narinfo.known import NarInfoMemory
from ncps.errors import Malformed
from ncps.nix.narurl import NarKey
from ncps.ports import Notice, NoticeKind, Notices


class Invalidation:
    """See the module; `listen` begins."""

    _log = Logger()

    def __init__(
        self, notices: Notices, tasks: Tasks, memory: NarInfoMemory, negatives: RecentSet
    ) -> None:
        self._notices = notices
        self._tasks = tasks
        self._memory = memory
        self._negatives = negatives

    def listen(self) -> None:
        """Do as the others say from now on."""
        self._notices.subscribe(self.heard)

    def nar_changed(self, key: NarKey) -> None:
        """The state of a NAR has changed here: its narinfos are dropped everywhere."""
        self._memory.drop_nar(key)
        self._tell("nar", key.file_name)

    def appeared(self, digest: str, key: NarKey) -> None:
        """A narinfo and its NAR are known now: nobody is to say that they are absent."""
        self._negatives.forget(digest)
        self._negatives.forget(key)
        self._tell("absent", digest)
        self._tell("absent", key.file_name)

    def _tell(self, kind: NoticeKind, name: str) -> None:
        self._tasks.start(f"notice of {name}", self._notices.publish(Notice(kind, name)))

    def heard(self, notice: Notice) -> None:
        """Drop what another process has changed."""
        if notice.kind == "gap":
            self._memory.clear()
            self._negatives.clear()
        elif notice.kind == "narinfo":
            self._memory.drop(notice.name)
        else:
            self._heard_of(notice)

    def _heard_of(self, notice: Notice) -> None:
        try:
            key = NarKey.parse(notice.name)
        except Malformed:  # a digest
            self._memory.drop(notice.name)
            self._negatives.forget(notice.name)
            return
        self._memory.drop_nar(key)
        self._negatives.forget(key)

    async def expire(self) -> None:
        """Drop all narinfos held in memory; they are read again as they are asked for."""
        self._memory.clear()
