"""Tree: durable files under one root directory.

A file appears under its key by rename (or link) only, after its bytes have reached the disk, and
the call returns when its name has, too: the file and every directory with a new entry are synced.

Every method blocks as long as the disk takes. Threads call them, except for `probe` at the start.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ncps.aio.places import remedy
from ncps.errors import Corrupt, Refused
from ncps.storage import keys
from ncps.storage.directories import Directories, sync_directory
from ncps.storage.listing import files, files_in_shards
from ncps.storage.os_errors import reading, writing
from ncps.storage.sealed import copy_checked, digest_of, seal_file, sealed
from ncps.storage.temps import Temps

_DIRECTORY_MODE: Final = 0o700
SETTING: Final = "cache-storage-local"


class Tree:
    """Files by key below one root.

    Methods raise Unavailable if they fail now, StorageFull if they write and may not.

    :param root: absolute; `probe` makes it if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temps = Temps(root / keys.TEMPS, SETTING)
        self.directories = Directories(root)
        self.path = self.directories.path
        self.check_present = self.directories.check_present
        self._install = self.directories.install

    def probe(self) -> None:
        """Make the directories and check that files can be written.

        Raises Refused if the tree can never be used like this, StorageFull if its files can be
        served and none can be written.
        """
        root = self.root
        if not root.is_absolute():
            raise Refused(f"{SETTING}: the path must be absolute, and {str(root)!r} is not")
        try:
            root.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            for name in keys.DIRECTORIES:
                self.directories.make_parents(self.path(f"{name}/"))
        except (FileExistsError, NotADirectoryError) as error:
            raise _unusable(f"{error.filename} is not a directory", error) from error
        except OSError as error:
            # A sync that fails names no file.
            what = f"{error.filename or root} cannot be made: {error.strerror}"
            raise _unusable(what, error) from error
        if not os.access(root / keys.TEMPS, os.W_OK | os.X_OK):
            raise _unusable(f"{root} is not writable for this user")
        self.temps.probe()

    def stat(self, key: str) -> os.stat_result | None:
        """Return properties of a regular file; None if none is there."""
        found = self.first_of((key,))
        return None if found is None else found[1]

    def first_of(self, keys: Sequence[str]) -> tuple[int, os.stat_result] | None:
        """Return the first of some regular files that is there, and its place; None for none."""
        for number, key in enumerate(keys):
            facts = _look(self.path(key))
            if facts is not None:
                return number, facts
        self.check_present()
        return None

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small file; None if it is absent."""
        path = self.path(key)
        with reading(path):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                self.check_present()
                return None

    def create(self, key: str, data: bytes) -> bool:
        """Make a small file; return False if there is one."""
        with writing(self.path(key)), sealed(self.temps, lambda temp: temp.write(data)) as temp:
            try:
                self._install(os.link, temp.name, key)
            except FileExistsError:
                # The thread or process that won may not have synced the name yet.
                sync_directory(self.path(key).rpartition("/")[0])
                return False
        return True

    def adopt(self, key: str, source: Path, size: int, digest: bytes, aside: str) -> os.stat_result:
        """Make a finished file the object, by rename or else by copy; the source is gone then.

        Raises Corrupt if the source has another size or, where it is copied, other bytes.

        :param digest: SHA-256 of the bytes.
        :param aside: key for an object that is there already and has other bytes.
        """
        with writing(self.path(key)):
            facts = self.existing(key, size, digest)
            if facts is None:
                facts = seal_file(source, size)
                self.keep_aside(key, aside)
                try:
                    self._install(os.rename, str(source), key)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    with sealed(self.temps, partial(copy_checked, source, digest=digest)) as temp:
                        facts = os.fstat(temp.fd)
                        self._install(os.rename, temp.name, key)
            with suppress(FileNotFoundError):
                source.unlink()
        return facts

    def existing(self, key: str, size: int, digest: bytes) -> os.stat_result | None:
        """Return properties of an object that has these bytes already; make its name durable."""
        facts = _look(self.path(key))  # the next step tells if the tree is gone
        if facts is None or facts.st_size != size:
            return None
        try:
            if digest_of(self.path(key)) != digest:
                return None
            # The thread or process that published it may not have synced the name yet.
            sync_directory(self.path(key).rpartition("/")[0])
        except FileNotFoundError:  # deleted and pruned just now
            return None
        return facts

    def keep_aside(self, key: str, aside: str) -> bool:
        """Give an object a second name before another object replaces it; say whether it has it.

        A directory or a pipe under the key can have one name only and gets the new one.
        """
        path, where = self.path(aside), self.path(key)
        with suppress(OSError):  # absent, no room, or a file system without links: those bytes go
            is_file = stat.S_ISREG(os.lstat(where).st_mode)
            self.directories.make_parents(path)
            (os.link if is_file else os.rename)(where, path)
            return is_file
        return False

    def copy(self, key: str, target: str, is_same: Callable[[os.stat_result], bool]) -> bool:
        """Give a file a second key, replacing what is there; return False if it is absent.

        Raises Corrupt if it is another file.

        :param is_same: whether a file with these properties is the one to copy.
        """
        temp = self.temps.name("temp")
        with writing(self.path(target)):
            try:
                os.link(self.path(key), temp)
            except FileNotFoundError:
                self.check_present()
                return False
            try:
                if not is_same(temp.stat()):
                    raise Corrupt(f"{self.path(key)} was replaced")
                self._install(os.rename, str(temp), target)
            finally:
                # If both names are those of one file already, rename leaves both.
                temp.unlink(missing_ok=True)
        return True

    def remove(self, key: str) -> bool:
        """Remove the object, and its shard directories if they are empty; False if it is absent.

        Not synced: a file that a power loss brings back is an orphan without a row.
        """
        path = self.path(key)
        with writing(path):
            try:
                Path(path).unlink()
            except (FileNotFoundError, NotADirectoryError):
                self.check_present()
                return False
            except IsADirectoryError:  # a directory is no object
                return False
            if keys.is_sharded(key):
                self.directories.prune(path)
        return True

    def move(self, key: str, target: str) -> bool:
        """Give a file, a directory or a pipe another key; return False if it is absent."""
        path = self.path(key)
        with writing(path):
            try:
                os.lstat(path)
                self._install(os.rename, path, target)
            except (FileNotFoundError, NotADirectoryError):
                self.check_present()
                return False
            self.directories.prune(path)
        return True

    def walk(self, base: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield keys and properties of the files below a base of `keys`, lazily.

        A file that goes meanwhile is left out. The quarantine has no shards, and a link in it is
        not a file. Raises Unavailable if a directory cannot be read or the disk is not mounted.
        """
        self.check_present()
        path = self.path(base)
        if keys.is_sharded(base):
            yield from files_in_shards(path, base)
        else:
            yield from files(path, base, follows=False)


def _look(path: str) -> os.stat_result | None:
    """Return properties of a regular file; None if none is there, or no tree."""
    with reading(path):
        try:
            facts = os.lstat(path)
            if stat.S_ISLNK(facts.st_mode):
                facts = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:  # a link that leads to itself
                raise
            return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _unusable(what: str, error: OSError | None = None) -> Refused:
    return Refused(f"{SETTING}: {what}; {remedy(SETTING, error)}")
