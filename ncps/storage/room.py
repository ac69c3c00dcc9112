"""Room: how much space the file systems that we write to have left."""

from __future__ import annotations

import os
from pathlib import Path

from ncps.storage.oserrors import reading


def free_bytes(*directories: Path) -> int:
    """Bytes that an ordinary user may still write in all of the directories. Unavailable."""
    least = []
    for directory in directories:
        with reading(str(directory)):
            facts = os.statvfs(directory)
        least.append(facts.f_bavail * facts.f_frsize)
    return min(least)
