from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import tracemalloc
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps import cli, codec
from ncps.codec import encoder
from ncps.commandline import recompress
from ncps.nix.hashes import sha256_of
from ncps.nix.narcheck import NarDigest
from ncps.storage.os_errors import writing
from tests.fixtures import NIX
from tests.system.caches import pack_nar

NAR = (NIX / "src.nar").read_bytes()


class RecompressCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def put(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def recompress(self, *words: object) -> tuple[int, str, str]:
        """Run the command; return its exit code and its output."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(["nar", "recompress", *map(str, words)])
        return code, out.getvalue(), err.getvalue()

    def refused(self, *words: object, saying: str) -> None:
        """Check that it fails with one line, and leaves no file."""
        before = sorted(self.directory.iterdir())
        code, out, err = self.recompress(*words)
        self.assertEqual((1, "", 1), (code, out, err.count("\n")), err)
        self.assertIn(saying, err)
        self.assertEqual(before, sorted(self.directory.iterdir()))


class RecompressTests(RecompressCase):
    def test_from_every_compression(self) -> None:
        """The new file holds the NAR, and the printed fields are right."""
        for compression in codec.CODECS:
            name = "src.nar" if compression == "none" else f"src.nar.{compression}"
            source = self.put(name, (NIX / name).read_bytes())
            target = self.directory / f"{compression}.new"
            code, out, err = self.recompress(source, "--output", target)
            self.assertEqual((0, ""), (code, err))
            data = target.read_bytes()
            digest = NarDigest("zstd")
            digest.feed(data)
            self.assertEqual((sha256_of(NAR), len(NAR)), digest.finish())
            first, *facts = out.splitlines()
            self.assertIn(f"{source.stat().st_size} bytes of {compression} became", first)
            self.assertEqual(
                [
                    "Compression: zstd",
                    f"FileHash: {sha256_of(data)}",
                    f"FileSize: {len(data)}",
                    f"NarHash: {sha256_of(NAR)}",
                    f"NarSize: {len(NAR)}",
                ],
                facts,
            )

    def test_its_own_name(self) -> None:
        """Without --output, the new file is beside the old one, which stays."""
        source = self.put("a.nar.xz", (NIX / "src.nar.xz").read_bytes())
        self.assertEqual(0, self.recompress(source, "--level=19", "--threads=2", "--long")[0])
        self.assertEqual({"a.nar.xz", "a.nar.zst"}, {p.name for p in self.directory.iterdir()})

    def test_an_existing_file(self) -> None:
        """It is kept, even if it appears meanwhile, unless --force is given."""
        source = self.put("a.nar", NAR)
        taken = self.put("a.nar.zst", b"old")
        self.refused(source, saying="a.nar.zst exists: name another file with --output")
        self.assertEqual(b"old", taken.read_bytes())
        self.assertEqual(0, self.recompress(source, "--force")[0])
        self.assertNotEqual(b"old", taken.read_bytes())
        self.refused(taken, saying="is the file to read")
        self.refused(source, "--output", source, "--force", saying="is the file to read")
        prove = recompress._proven

        def late(*given: Any) -> Any:
            self.put("late.zst", b"late")
            return prove(*given)

        self.patch(recompress, "_proven", late)
        code, _, err = self.recompress(source, "--output", self.directory / "late.zst")
        self.assertEqual(1, code)
        self.assertIn("late.zst exists", err)
        self.assertEqual(b"late", (self.directory / "late.zst").read_bytes())

    def test_memory_is_bounded(self) -> None:
        """A NAR of 64 MiB in a small file is processed in pieces."""
        source = self.put("zeros.nar", pack_nar(bytes(64 * 2**20)))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(0, self.recompress(source, "--level=1")[0])
        self.assertLess(tracemalloc.get_traced_memory()[1], 8 * 2**20)


class BadInputTests(RecompressCase):
    def test_invalid_nars(self) -> None:
        """Garbage, cut and damaged files, and other things than files give one line each."""
        xz = (NIX / "src.nar.xz").read_bytes()
        packer = encoder("gzip")
        text = packer.feed(b"hello") + packer.finish()
        for name, data, saying in (
            ("empty", b"", "is no NAR: expected"),
            ("text", b"hello", "is no NAR: expected"),
            ("cut.xz", xz[:-20], "ends too early"),
            ("flipped.xz", xz[:100] + bytes([xz[100] ^ 1]) + xz[101:], "is damaged, or no NAR"),
            ("longer.nar", NAR + b"x", "is damaged, or no NAR"),
            ("text.gz", text, "is damaged, or no NAR: bad NAR"),
            ("garbage.br", b"\xff" * 40, "is damaged, or no NAR"),
        ):
            self.refused(self.put(name, data), saying=saying)
        self.refused(self.directory / "away", saying="cannot be read: No such file")
        self.refused(self.directory, saying="is a directory")
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        self.refused(pipe, saying="is a pipe or a device")

    def test_a_bad_place(self) -> None:
        """A missing directory, or a wrong name, is an error."""
        source = self.put("a.nar", NAR)
        self.refused(source, "--output", self.directory / "b" / "c", saying="cannot be written")
        self.refused(source, "--output", self.directory, saying="is not a file")
        self.refused(source, "--output", self.directory / ("a" * 300), saying="File name too long")

    def test_a_full_disk(self) -> None:
        """It is reported, and the unfinished file is removed."""

        def full(_self: object, _data: bytes) -> None:
            with writing("x"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(recompress._Unfinished, "write", full)
        self.refused(self.put("a.nar", NAR), saying="No space left")

    def test_a_disk_that_lies(self) -> None:
        """The new file is read again before it gets its name."""
        write = recompress._Unfinished.write

        def wrong(new: Any, data: bytes) -> None:
            write(new, data[:-9] + b"\0" * 9 if len(data) > 9 else data)

        self.patch(recompress._Unfinished, "write", wrong)
        self.refused(self.put("a.nar", NAR), saying="bad zstd data")

    def test_a_termination(self) -> None:
        """SIGTERM, and SIGHUP of a closed terminal, leave no unfinished file."""
        source = self.put("a.nar", NAR)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGHUP):

            def ended(*_given: object, number: int = number) -> None:
                os.kill(os.getpid(), number)

            self.patch(recompress, "_proven", ended)
            with self.assertRaises(SystemExit) as stopped:
                self.recompress(source)
            self.assertEqual(128 + number, stopped.exception.code)
            self.assertEqual([source], list(self.directory.iterdir()))

    def test_nohup(self) -> None:
        """If SIGHUP is ignored, it stays ignored."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        proven = recompress._proven

        def hung_up(*given: Any) -> object:
            os.kill(os.getpid(), signal.SIGHUP)
            return proven(*given)

        self.patch(recompress, "_proven", hung_up)
        self.assertEqual(0, self.recompress(self.put("a.nar", NAR))[0])
