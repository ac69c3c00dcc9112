"""FakeWorkers: runs every call at once, on the calling thread."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ncps.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


class FakeWorkers:
    """The interface of `ncps.aio.threads.Workers` without threads; counts the calls."""

    def __init__(self, name: str = "fake", size: int = 1) -> None:
        self.name = name
        self.size = size
        self.calls = 0
        self._is_open = True

    @property
    def running(self) -> int:
        return 0

    @property
    def waiting(self) -> int:
        return 0

    def start(self) -> None:
        self._is_open = True

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._is_open:
            raise Unavailable(f"the {self.name} threads are not running")
        self.calls += 1
        return function(*args, **kwargs)

    async def stop(self, deadline_s: float) -> int:
        self._is_open = False
        return 0
