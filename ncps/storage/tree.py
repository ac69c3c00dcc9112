"""Tree: durable files under one root directory.

A file gets its key by a rename or a link, after its bytes are on the disk. The call returns when
the name is on the disk as well: the file and every directory with a new entry are synced. All

methods wait for the disk, so threads call them, except for `probe` at the start.
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
    """A tree of files by key below one root.

    Methods raise Unavailable if they fail now, StorageFull if writing is not possible.

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

        Raises Refused if the tree cannot be used at all, StorageFull if its files can be read but
        none can be written.
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
            # The error of a failed sync has no file name.
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
        """Return the first of these regular files that exists, and its index; None for none."""
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
        """Make a small file; return False if it exists already."""
        with writing(self.path(key)), sealed(self.temps, lambda temp: temp.write(data)) as temp:
            try:
                self._install(os.link, temp.name, key)
            except FileExistsError:
                # The winner may not have synced the name yet.
                sync_directory(self.path(key).rpartition("/")[0])
                return False
        return True

    def adopt(self, key: str, source: Path, size: int, digest: bytes, aside: str) -> os.stat_result:
        """Make a finished file the object, by rename or else by copy; remove the source.

        Raises Corrupt if the source has another size or, if it is copied, other bytes.

        :param digest: SHA-256 of the bytes.
        :param aside: new key for an existing object with other bytes.
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
        """Return properties of an existing object with these bytes, and make its name durable.

        None if there is none.
        """
        facts = _look(self.path(key))  # the next step tells if the tree is gone
        if facts is None or facts.st_size != size:
            return None
        try:
            if digest_of(self.path(key)) != digest:
                return None
            # The publisher may not have synced the name yet.
            sync_directory(self.path(key).rpartition("/")[0])
        except FileNotFoundError:  # deleted and pruned just now
            return None
        return facts

    def keep_aside(self, key: str, aside: str) -> bool:
        """Give an object a second name before it is replaced; return whether it has two now.

        A directory or a pipe under the key can have only one name, and gets the new one.
        """
        path, where = self.path(aside), self.path(key)
        with suppress(OSError):  # absent, no room, or no hard links: then the bytes are lost
            is_file = stat.S_ISREG(os.lstat(where).st_mode)
            self.directories.make_parents(path)
            (os.link if is_file else os.rename)(where, path)
            return is_file
        return False

    def copy(self, key: str, target: str, is_same: Callable[[os.stat_result], bool]) -> bool:
        """Give a file a second key, replacing a file there; return False if it is absent.

        Raises Corrupt if it is another file.

        :param is_same: returns whether a file with these properties is the expected one.
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
                # If both names belong to one file already, rename keeps both.
                temp.unlink(missing_ok=True)
        return True

    def remove(self, key: str) -> bool:
        """Remove an object, and its shard directories if they are empty; False if it is absent.

        It does not sync: if a loss of power brings the file back, it is an orphan without a row.
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

        Files that disappear are omitted. The quarantine has no shards, and a link in it is not a
        file. Raises Unavailable if a directory cannot be read or the disk is not mounted.
        """
        self.check_present()
        path = self.path(base)
        if keys.is_sharded(base):
            yield from files_in_shards(path, base)
        else:
            yield from files(path, base, follows=False)


def _look(path: str) -> os.stat_result | None:
    """Return properties of a regular file; None if the file or the tree does not exist."""
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
