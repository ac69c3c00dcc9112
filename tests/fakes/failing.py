"""Fakes that fail on demand."""

from __future__ import annotations

from ncps.errors import NcpsError


class Failing:
    """A fake whose calls fail while a test says so.

    :ivar failing: raised by every call while it is set.
    :ivar failing_writes: raised by calls that change something.
    """

    def __init__(self) -> None:
        self.failing: NcpsError | None = None
        self.failing_writes: NcpsError | None = None

    def _reading(self) -> None:
        if self.failing is not None:
            raise self.failing.with_traceback(None)

    def _writing(self) -> None:
        self._reading()
        if self.failing_writes is not None:
            raise self.failing_writes.with_traceback(None)
