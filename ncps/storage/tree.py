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

from ncps.errors import Corrupt, Refused, Unavailable
from ncps.storage import keys
from ncps.storage.os_errors import reading, writing
from ncps.storage.temps import TempFile, Temps

_ATTEMPTS: Final = 100
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
        self._prefix = f"{root}/"
        self._durable: set[str] = set()  # directories whose own names are known to be on disk

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
                self._make_parents(f"{self._prefix}{name}/")
        except (FileExistsError, NotADirectoryError) as error:
            raise Refused(f"the storage path {error.filename} is not a directory") from error
        except OSError as error:
            raise Refused(
                f"the storage path {error.filename} cannot be made: {error.strerror}"
            ) from error
        if not os.access(root / keys.TEMPS, os.W_OK | os.X_OK):
            raise Refused(f"the storage path {root} is not writable for this user")
        self.temps.probe()

    def path(self, key: str) -> str:
        """Where the object of this key lies."""
        return self._prefix + key

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

    def check_present(self) -> None:
        """Raise Unavailable unless the tree is there: an unmounted disk has lost no object."""
        base = self._prefix + keys.NARS
        if not Path(base).is_dir():
            raise Unavailable(f"{base} is not there: the disk may not be mounted")

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
                _sync_directory(self.path(key).rpartition("/")[0])
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
            _sync_directory(self.path(key).rpartition("/")[0])
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
            self._make_parents(path)
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

    def remove(self, key: str, *, in_shard: bool = True) -> bool:
        """Remove the object; False if absent. StorageFull (read-only), Unavailable.

        Not synced: what comes back after a power loss is an orphan, found by its missing row.

        :param in_shard: whether it lies in shard directories, which go with their last object.
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
            if in_shard:
                self._prune(path)
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
            self._prune(path)
        return True

    def walk(self, base: str) -> Iterator[tuple[str, os.stat_result]]:
        """Keys and facts of the files below `base` that lie in shards. Unavailable.

        Lazy, one directory of a shard open at a time; what goes meanwhile is left out.
        """
        self.check_present()
        for shard in self._directories(base):
            for sub_shard in self._directories(shard):
                yield from self._files(sub_shard)

    def files(self, base: str) -> Iterator[tuple[str, os.stat_result]]:
        """Keys and facts of the files that lie in the directory `base` itself, links aside.

        Lazy, as `walk`. Unavailable.
        """
        self.check_present()
        yield from self._files(base, follows=False)

    def _directories(self, base: str) -> Iterator[str]:
        for entry in self._scan(base):
            with reading(entry.path):
                if entry.is_dir(follow_symlinks=False):
                    yield f"{base}/{entry.name}"

    def _files(self, base: str, *, follows: bool = True) -> Iterator[tuple[str, os.stat_result]]:
        for entry in self._scan(base):
            with reading(entry.path):
                try:
                    facts = entry.stat(follow_symlinks=follows)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    continue
            if stat.S_ISREG(facts.st_mode):
                yield f"{base}/{entry.name}", facts

    def _scan(self, base: str) -> Iterator[os.DirEntry[str]]:
        path = self.path(base)
        with reading(path):
            try:
                entries = os.scandir(path)
            except FileNotFoundError:
                return
        with entries:
            while True:
                with reading(path):
                    entry = next(entries, None)
                if entry is None:
                    return
                yield entry

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

    def _install(self, operation: Callable[[Path, str], None], source: Path, key: str) -> None:
        """Rename or link a sealed file to its key, durably."""
        path = self.path(key)
        for _ in range(_ATTEMPTS):
            try:
                self._make_parents(path)
                operation(source, path)
            except FileNotFoundError:
                if not source.exists():
                    raise
                self.check_present()  # else a shard was pruned under our hands
            else:
                break
        else:
            raise Unavailable(f"{path}: its directory disappears again and again")
        with suppress(FileNotFoundError):  # deleted and pruned meanwhile, by whoever may
            _sync_directory(path.rpartition("/")[0])

    def _make_parents(self, path: str) -> None:
        """Make the directories between root and file, and make their names durable."""
        slash = path.find("/", len(self._prefix))
        while slash != -1:
            directory = path[:slash]
            try:
                Path(directory).mkdir(_DIRECTORY_MODE)
                is_new = True
            except FileExistsError:
                if not Path(directory).is_dir():
                    raise
                is_new = False
            if is_new or directory not in self._durable:
                _sync_directory(directory.rpartition("/")[0])
                self._durable.add(directory)
            slash = path.find("/", slash + 1)

    def _prune(self, path: str) -> None:
        """Remove the shard directories above a file that went, as far as they are empty."""
        for _ in range(2):
            path = path.rpartition("/")[0]
            # Forgotten first: who makes it again in between must not take it for durable.
            self._durable.discard(path)
            try:
                Path(path).rmdir()
            except OSError:  # not empty, or gone already
                return


def _seal(fd: int) -> None:
    """Make the bytes durable and the file read-only."""
    os.fchmod(fd, _FILE_MODE)
    os.fsync(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
