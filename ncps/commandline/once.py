"""The reactor of a one-shot command."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ncps.errors import NcpsError


def run_once(work: Callable[[Any], Coroutine[Any, Any, None]]) -> int:
    """Call `work` with the reactor and run its coroutine to the end; return the exit code.

    Raises the NcpsError that the coroutine raises. Another error is printed and gives exit code 1.
    """
    failure: NcpsError | None = None

    async def main(reactor: Any) -> None:
        nonlocal failure
        try:
            await work(reactor)
        except NcpsError as error:
            failure = error

    code = 1
    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as done:
        code = 1 if done.code else 0
    if failure is not None:
        raise failure
    return code
