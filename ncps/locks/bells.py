"""Bells: who waits for a name hears at once when it may be free, and looks for himself."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Bells:
    """One bell for each name that somebody in this process waits for.

    A bell is hung up before the attempt it is to save from waiting, so that a release between
    the attempt and the wait is not missed. Ringing too often does no harm.
    """

    def __init__(self) -> None:
        self._hanging: dict[str, Deferred[None]] = {}

    def __len__(self) -> int:
        return len(self._hanging)

    def hang(self, name: str) -> Deferred[None]:
        """Return what fires when the bell of that name rings; only one hangs for each name."""
        assert name not in self._hanging
        bell: Deferred[None] = Deferred()
        self._hanging[name] = bell
        return bell

    def take_down(self, name: str) -> None:
        """Forget the bell, rung or not."""
        self._hanging.pop(name, None)

    def ring(self, name: str) -> None:
        """The name may be free."""
        bell = self._hanging.get(name)
        if bell is not None and not bell.called:
            bell.callback(None)

    def ring_all(self) -> None:
        """Any name may be free: announcements may have been missed."""
        for name in list(self._hanging):
            self.ring(name)
