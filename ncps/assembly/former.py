"""The refusal of data of the Go program of the same name, which ncps cannot import yet.

Since its version 0.5, only its database holds the narinfos and the signing key. A new cache in its
store would lose the uploads, and sign with a key that no client knows. So the start and
`ncps rebuild` fail before they write anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from ncps.assembly.databases import dialect
from ncps.database import former, migrate
from ncps.errors import Unavailable
from ncps.settings.schema.tree import Settings
from ncps.storage.lock import StoreLock

_ENDINGS: Final = frozenset({".sqlite", ".sqlite3", ".db"})
_MOST: Final = 1000
"""Names that are read in each directory, at most."""


def refuse_former(settings: Settings) -> None:
    """Look for a database of the Go program, in the settings or beside the store.

    Blocks, and changes nothing. Raises Refused if there is one, unless ncps has used the store or
    the catalog before.
    """
    try:
        is_used = migrate.is_used(dialect(settings))
    except Unavailable:
        return  # the first use of the database reports it
    root = settings.cache.storage.local
    if is_used or (root is not None and StoreLock(root).path.exists()):
        return
    for path in _candidates(settings):
        if former.is_former_file(path) and _is_of(path, root):
            raise former.refusal(str(path), is_file=True)


def _candidates(settings: Settings) -> Iterator[Path]:
    """Yield files that may be databases, in the usual directories of the Go program."""
    root, url = settings.cache.storage.local, settings.cache.database_url
    directories = [] if root is None else [*_below(root), *_below(root.parent)]
    if url.is_file:
        directories.append(url.path.parent)
    for directory in dict.fromkeys(directories):
        try:
            names = sorted(islice(directory.iterdir(), _MOST))
        except OSError:
            continue
        for path in names:
            if path.suffix in _ENDINGS and not (url.is_file and path == url.path):
                yield path


def _below(directory: Path) -> tuple[Path, ...]:
    return directory, directory / "db", directory / "var" / "ncps" / "db"


def _is_of(path: Path, root: Path | None) -> bool:
    """Whether a database belongs to the store: it is inside, or has rows of files in it."""
    if root is None or root in path.parents:
        return True
    nars, chunks = former.files_of(path)
    store = root / "store"
    return any(
        next((store / kind / name[:1] / name[:2]).glob(f"{name}*"), None) is not None
        for kind, names in (("nar", nars), ("chunk", chunks))
        for name in names
        if name.isalnum()
    )
