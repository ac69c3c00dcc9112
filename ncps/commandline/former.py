"""The commands that only the Go program has: each says what replaces it.

The exit code is 0 if there is nothing to do, so that scripts which call them go on, else 2.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ncps.errors import NcpsError, Unavailable
from ncps.settings.schema.storage import S3Settings
from ncps.settings.schema.tree import Settings

TO_BE_DONE: Final = 2
CHUNKS: Final = "store/chunk/"
"""The key below which the Go program keeps chunks."""

_INSTEAD: Final[Mapping[str, str]] = {
    "fsck": (
        "ncps checks each NAR while it arrives, and later while it runs (cache-verify-rate), and"
        " removes files without a record; /readyz and the log say what it finds"
    ),
    "migrate-narinfo": (
        "ncps reads the narinfos of a store itself; if its database is lost, `ncps rebuild` makes"
        " it from them"
    ),
    "migrate-nar-to-chunks": "ncps keeps each NAR whole, and has no chunks",
}


def say(options: Namespace, settings: Settings) -> int:
    """Print the line of a command; return 0 if there is nothing to do."""
    name = options.command
    if name == "migrate-chunks-to-nar":
        return _chunks(name, settings)
    sys.stdout.write(f"ncps: {name}: nothing to do: {_INSTEAD[name]}\n")
    return 0


def _chunks(name: str, settings: Settings) -> int:
    root, s3 = settings.cache.storage.local, settings.cache.storage.s3
    where = f"the bucket {s3.bucket}" if root is None else str(root)
    try:
        has_chunks = _bucket_has_chunks(s3) if root is None else _has_file(root / CHUNKS)
    except NcpsError as error:
        sys.stderr.write(f"ncps: error: {name}: cannot tell whether there are chunks: {error}\n")
        return TO_BE_DONE
    if not has_chunks:
        sys.stdout.write(f"ncps: {name}: nothing to do: there are no chunks in {where}\n")
        return 0
    sys.stderr.write(
        f"ncps: error: {name}: {where} has chunks below {CHUNKS}, which only the Go program can"
        f" read: run its {name} before you replace it, or ncps fetches these NARs again\n"
    )
    return TO_BE_DONE


def _bucket_has_chunks(s3: S3Settings) -> bool:
    from ncps.assembly.bucket import holds_blocking  # noqa: PLC0415 - imports boto3, which is slow

    return holds_blocking(s3, CHUNKS)


def _has_file(directory: Path) -> bool:
    """Whether a directory holds a file at any depth. Raises Unavailable if it cannot be read."""
    try:
        return any(path.is_file() for path in directory.rglob("*"))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}") from error
