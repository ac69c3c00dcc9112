"""Parts of one-shot commands: the reactor, and a check of the owner of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ncps.aio.places import user_name
from ncps.errors import NcpsError, Refused


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


def check_owner(path: Path, owner: int, use: str) -> None:
    """Raise Refused if the files at `path` belong to another user than that of this process.

    New files beside them would be ours.

    :param use: the work of the daemon that would fail then, as an infinitive without "to".
    """
    if owner != os.geteuid():
        raise Refused(
            f"{path} belongs to user {user_name(owner)}: run the command as that user, or the"
            f" daemon could not {use}"
        )
