"""Tree: durable files under one root directory.

A file appears under its key by rename (or link) only, after its bytes have reached the disk, and
the call returns when its name has, too: file and every directory that got a new entry are synced.
Shard directories come and go with their files; a directory that another thread or process removed
between its making and the rename is simply made again.

All methods but `probe` block for as long as the disk takes and are meant for `Workers`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Final

from ncps.errors import Corrupt, Refused
from ncps.storage import keys
from ncps.storage.directories import Directories, sync_directory
from ncps.storage.listing import files, files_in_shards
from ncps.storage.os_errors import reading, writing
from ncps.storage.temps import TempFile, Temps

_COPY_SIZE: Final = 1024 * 1024
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o400


class Tree:
    """See the module.

    :param root: absolute; made by `probe` where it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temps = Temps(root / keys.TEMPS)
        self.directories = Directories(root)
        self.path = self.directories.path
        self.check_present = self.directories.check_present
        self._install = self.directories.install

    def probe(self) -> None:
        """Make the directories and check that files can be written; for the start, blocking.

        Refused: it can never work as it is. StorageFull: what is there can be served at least.
        """
        root = self.root
        if not root.is_absolute():
            raise Refused(f"the storage path must be absolute, and {str(root)!r} is not")
        try:
            root.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            for name in (keys.NARS, keys.NARINFOS, keys.QUARANTINE, keys.TEMPS, keys.CONFIG):
                self.directories.make_parents(self.path(f"{name}/"))
        except (FileExistsError, NotADirectoryError) as error:
            raise Refused(f"the storage path {error.filename} is not a directory") from error
        except OSError as error:
            raise Refused(
                f"the storage path {error.filename} cannot be made: {error.strerror}"
            ) from error
        if not os.access(root / keys.TEMPS, os.W_OK | os.X_OK):
            raise Refused(f"the storage path {root} is not writable for this user")
        self.temps.probe()

    def stat(self, key: str) -> os.stat_result | None:
        """Facts of a regular file; None: surely absent, also behind what is none. Unavailable."""
        path = self.path(key)
        with reading(path):
            try:
                facts = Path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                self.check_present()
                return None
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link that leads to itself
                    raise
                return None
        return facts if stat.S_ISREG(facts.st_mode) else None

    def read(self, key: str) -> bytes | None:
        """The bytes of a small file; None: surely absent. Unavailable."""
        path = self.path(key)
        with reading(path):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                self.check_present()
                return None

    def write(self, key: str, data: bytes) -> None:
        """Make a small file the object, replacing what is there. StorageFull, Unavailable."""
        with writing(self.path(key)):
            temp = self._write_temp(data)
            try:
                self._install(os.rename, temp.path, key)
            finally:
                temp.discard()
                temp.close()

    def create(self, key: str, data: bytes) -> bool:
        """Make a small file the object; False if there is one. StorageFull, Unavailable."""
        with writing(self.path(key)):
            temp = self._write_temp(data)
            try:
                self._install(os.link, temp.path, key)
            except FileExistsError:
                # Whoever won may not have come to syncing the name yet.
                sync_directory(self.path(key).rpartition("/")[0])
                return False
            finally:
                temp.discard()
                temp.close()
        return True

    def adopt(self, key: str, source: Path, size: int, digest: bytes, aside: str) -> os.stat_result:
        """Make a finished file the object, by rename or else by copy; the source is gone after.

        :param digest: SHA-256, checked where the bytes are copied.
        :param aside: key for an object that is there already and has other bytes.
        :raises Corrupt: if the source is not what it is said to be. StorageFull, Unavailable.
        """
        with writing(self.path(key)):
            facts = self._existing(key, size, digest)
            if facts is None:
                facts = self._sync_file(source, size)
                self._keep_aside(key, aside)
                try:
                    self._install(os.rename, source, key)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    facts = self._copy(source, key, digest)
            with suppress(FileNotFoundError):
                source.unlink()
        return facts

    def _existing(self, key: str, size: int, digest: bytes) -> os.stat_result | None:
        """Facts of an object with these very bytes that is durably there."""
        facts = self.stat(key)
        if facts is None or facts.st_size != size:
            return None
        try:
            if _digest_of(self.path(key)) != digest:
                return None
            # Whoever published it may not have come to syncing the name yet.
            sync_directory(self.path(key).rpartition("/")[0])
        except FileNotFoundError:  # deleted and pruned just now
            return None
        return facts

    def _keep_aside(self, key: str, aside: str) -> None:
        """Give the object that is there, if any, a second name, before another one replaces it.

        What is no file, a directory or a pipe, can have one name only, and gets that one.
        """
        path, where = self.path(aside), self.path(key)
        with suppress(OSError):  # absent, no room, or a file system without links: those bytes go
            is_file = stat.S_ISREG(os.lstat(where).st_mode)
            self.directories.make_parents(path)
            (os.link if is_file else os.rename)(where, path)

    def copy(self, key: str, target: str, is_same: Callable[[os.stat_result], bool]) -> bool:
        """Give the file of an object a second key, replacing what is there; False if absent.

        :param is_same: whether these are the facts of the file that is meant; Corrupt if not.
        :raises Corrupt: StorageFull, Unavailable.
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
                self._install(os.rename, temp, target)
            finally:
                # What rename finds to be the same file already, it leaves under both names.
                temp.unlink(missing_ok=True)
        return True

    def remove(self, key: str) -> bool:
        """Remove the object, and its shard directories if they are empty; False if it is absent.

        Not synced: a file that a power loss brings back is an orphan without a row. Raises
        StorageFull if nothing may be written, Unavailable.
        """
        path = self.path(key)
        with writing(path):
            try:
                Path(path).unlink()
            except (FileNotFoundError, NotADirectoryError):
                self.check_present()
                return False
            except IsADirectoryError:  # which is no object
                return False
            if keys.is_sharded(key):
                self.directories.prune(path)
        return True

    def move(self, key: str, target: str) -> bool:
        """Give what lies under the key another one, a directory or a pipe, too; False if absent.

        StorageFull, Unavailable.
        """
        path = self.path(key)
        with writing(path):
            try:
                os.lstat(path)
                self._install(os.rename, Path(path), target)
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

    def _write_temp(self, data: bytes) -> TempFile:
        temp = self.temps.create("temp")
        try:
            temp.write(data)
            _seal(temp.fd)
        except BaseException:
            temp.discard()
            temp.close()
            raise
        return temp

    def _sync_file(self, source: Path, size: int) -> os.stat_result:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            if facts.st_size != size:
                raise Corrupt(f"{source} has {facts.st_size} bytes, not {size}")
            _seal(fd)
            return facts
        finally:
            os.close(fd)

    def _copy(self, source: Path, key: str, digest: bytes) -> os.stat_result:
        temp = self.temps.create("temp")
        try:
            _copy_checked(source, temp, digest)
            _seal(temp.fd)
            facts = os.fstat(temp.fd)
            self._install(os.rename, temp.path, key)
        finally:
            temp.discard()
            temp.close()
        return facts


def _seal(fd: int) -> None:
    """Make the bytes durable and the file read-only."""
    os.fchmod(fd, _FILE_MODE)
    os.fsync(fd)


def _digest_of(path: str) -> bytes:
    with Path(path).open("rb", buffering=0) as file:
        return file_digest(file, "sha256").digest()


def _copy_checked(source: Path, target: TempFile, digest: bytes) -> None:
    actual = sha256()
    with source.open("rb", buffering=0) as file:
        while data := file.read(_COPY_SIZE):
            actual.update(data)
            target.write(data)
    if actual.digest() != digest:
        raise Corrupt(f"{source} changed before it was copied")
