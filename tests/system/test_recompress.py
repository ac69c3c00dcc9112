"""Recompression by a real daemon: narinfos name a zstd file, and old URLs keep their bytes."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import zstandard

from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath
from tests.system.test_eviction import Sized
from tests.system.wire import Answer
from tests.twins import CONSTANTS, OPTIONS
from tests.waiting import wait_until

SIZE = 300_000
LARGE = 9_000_000
"""Bytes of a NAR that the kernel does not take all at the same time."""
LONG_S = 90.0


class RecompressTests(Sized):
    def compressing(self, *options: str) -> Daemon:
        """Return a started daemon that compresses at any time."""
        daemon = self.make_daemon(self.mounted(), options=(*OPTIONS, *options))
        daemon.constants |= CONSTANTS
        daemon.start()
        return daemon

    def path(self, size: int = SIZE) -> StorePath:
        """Make a path whose contents compress to a third."""
        noise = os.urandom(size // 3).hex().encode()
        return self.cache.add(content=noise + noise[: size - len(noise)])

    def wait_for_twin(self, daemon: Daemon, path: StorePath) -> str:
        """Wait until the narinfo names a zstd file; return its target."""
        wait_until(
            lambda: self.nar_target(daemon, path).endswith(".zst"),
            "the narinfo to name the new file",
            deadline=LONG_S,
            daemon=daemon,
        )
        return self.nar_target(daemon, path)

    def assert_twin(self, daemon: Daemon, path: StorePath, target: str) -> bytes:
        """Check that a target has the NAR in zstd; return the file."""
        answer = self.ask(daemon, target)
        self.assertEqual((200, True), (answer.status, answer.whole))
        decoder = zstandard.ZstdDecompressor().decompressobj()
        self.assertEqual(path.nar, decoder.decompress(answer.body))
        return answer.body

    def names(self, daemon: Daemon) -> set[str]:
        return {"/nar/" + name for name in self.files(daemon)}

    def test_life_of_a_twin(self) -> None:
        """ncps makes a twin, replaces the original by it, and makes it again when it is damaged."""
        path = self.path()
        origin = self.mounted()
        daemon = self.make_daemon(origin, options=OPTIONS)
        daemon.constants |= CONSTANTS
        daemon.start()
        old = self.nar_target(daemon, path)
        before = self.narinfo(daemon, path).fields
        self.assert_served(daemon, path)
        new = self.wait_for_twin(daemon, path)
        data = self.assert_twin(daemon, path, new)
        after = self.narinfo(daemon, path).fields
        self.assertEqual("zstd", after["Compression"])
        self.assertEqual(str(len(data)), after["FileSize"])
        for name in ("StorePath", "NarHash", "NarSize", "References", "Sig"):
            self.assertEqual(before[name], after[name])
        self.assertEqual((200, path.file), _answer(self.ask(daemon, old)))
        self.assertEqual(1, origin.gets(path.nar_target))
        daemon.stop()
        daemon.options = (*daemon.options, "--cache-recompress-keep", "1s")
        daemon.start()
        wait_until(lambda: old not in self.names(daemon), "the original to go", daemon=daemon)
        self.assertEqual((200, path.file), _answer(self.ask(daemon, old)))
        self.assertEqual(2, origin.gets(path.nar_target))
        file = next(file for file in daemon.stored_nars() if f"/nar/{file.name}" == new)
        file.write_bytes(bytes(len(data)))
        self.assertEqual((200, data), _answer(self.ask(daemon, new)))
        again = self.metric(daemon, 'ncps_recompressions_total{outcome="remade"}')
        self.assertEqual(1, again)
        daemon.stop()
        self.assert_consistent(daemon)

    def test_default(self) -> None:
        """By default a NAR that clients ask for again gets a twin, and others do not."""
        once, again = self.path(), self.path(LARGE)
        daemon = self.make_daemon(self.mounted(), options=("--cache-recompress-max-load", "10000"))
        daemon.constants |= {
            **CONSTANTS,
            "ncps.assembly.recompression.REUSED_S": 0.5,
            "ncps.cache.nar.readers.LEAST_SHARE": 0.0,
        }
        daemon.start()
        for path in (once, again):
            self.assert_served(daemon, path)
        old = self.nar_target(daemon, again)

        def is_made() -> bool:
            self.assertEqual((200, again.file), _answer(self.ask(daemon, old)))
            return self.nar_target(daemon, again).endswith(".zst")

        wait_until(is_made, "the twin of a NAR in use", deadline=LONG_S, daemon=daemon)
        self.assert_twin(daemon, again, self.nar_target(daemon, again))
        self.assertFalse(self.nar_target(daemon, once).endswith(".zst"))

    def test_killed_at_work(self) -> None:
        """SIGKILL of the daemon ends the compressing process; only an unfinished file is left."""
        path = self.path(LARGE)
        daemon = self.compressing("--cache-recompress-level", "19")
        self.assert_served(daemon, path)
        pid = daemon.process.pid
        wait_until(lambda: _workers(pid), "a process that compresses", daemon=daemon)
        (worker,) = _workers(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker not in _workers(), "it to end")
        daemon.process.wait(10)
        self.assertEqual(1, len(self.files(daemon)))
        self.assert_consistent(daemon)
        daemon.options = (*daemon.options, "--cache-recompress-level", "1")
        daemon.start()
        self.assert_twin(daemon, path, self.wait_for_twin(daemon, path))
        daemon.stop()
        self.assertEqual([], list((daemon.directory / "tmp").glob("spool-*")))
        self.assert_consistent(daemon)

    def test_workers_make_one(self) -> None:
        """One of two workers makes the twin, and both name it."""
        path = self.path()
        daemon = self.compressing("--workers", "2")
        self.assert_served(daemon, path)
        target = self.wait_for_twin(daemon, path)
        wait_until(
            lambda: all(self.nar_target(daemon, path) == target for _ in range(20)),
            "both workers to name it",
            daemon=daemon,
        )
        self.assert_twin(daemon, path, target)
        self.assertEqual(1, self.metric(daemon, 'ncps_recompressions_total{outcome="made"}'))


def _answer(answer: Answer) -> tuple[int, bytes]:
    return answer.status, answer.body


def _workers(parent: int | None = None) -> list[int]:
    """Return the processes that compress, of this machine or of one parent."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            stat = (process / "stat").read_bytes().rpartition(b")")[2].split()
            if b"ncps.process.transcoding" in words and parent in {None, int(stat[1])}:
                found.append(int(process.name))
    return found
