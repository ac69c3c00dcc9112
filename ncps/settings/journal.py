"""The journal of systemd as the place of the log: each line begins with its level.

systemd reads `<4>` at the beginning of a line as the level warning, and takes it off (see
sd-daemon(3)).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, TextIO

_USUAL: Final = "<6>"
_MARKS: Final = {"debug": "<7>", "info": _USUAL, "warn": "<4>", "error": "<3>", "critical": "<2>"}


def is_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether a stream leads to the journal itself.

    Programs inherit the variable also where their output goes into a pipe or a file. So the
    variable counts only if it names the device and the inode of the stream (systemd.exec(5)).
    """
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if stream is None or not (device and inode):
        return False
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


def marked(lines: str, level: object) -> str:
    """Return lines, each with the mark of a level in front; the last line may lack its end.

    :param level: one of `LogLevel`; anything else counts as info.
    """
    mark = _MARKS.get(str(getattr(level, "name", "")), _USUAL)
    text = mark + lines.replace("\n", f"\n{mark}")
    return text.removesuffix(mark) if lines.endswith("\n") else text
