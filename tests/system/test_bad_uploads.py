"""Bad uploads over sockets: each gets its status and a helpful text, and leaves no file."""

from __future__ import annotations

import contextlib
import select
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial

from attrs import evolve

from ncps.nix.keys import SecretKey
from ncps.nix.nar import FILE_HEAD
from tests.services import require
from tests.system.uploader import ALLOWED, UploadStage, head
from tests.unit.cache.write.rig import UPLOAD_KEY, by, each_tenth, upload
from tests.waiting import wait_until

MARK = b"xyzzy-6f1c"  # this text must not be in the log
ENDLESS = FILE_HEAD + (2**50).to_bytes(8, "little")
AT_ONCE = 100
ROOM = 40_000_000  # of a small disk
STEP = 1_000_000


class BadBytesTests(UploadStage):
    """One daemon, which must accept good uploads at the end."""

    def setUp(self) -> None:
        super().setUp()
        slow = ("--server-receive-stall-timeout", "1s")
        self.served_by = self.daemon("http://127.0.0.1:9", options=(ALLOWED, *slow))

    def test_bytes_that_are_not_those_of_the_name(self) -> None:
        """Flipped bits, cut files and wrong names get 400, and nothing is stored."""
        daemon = self.served_by
        for compression in ("none", "zstd", "xz"):
            one = upload(compression, compression, 300_000)
            for offset in each_tenth(one.file):
                flipped = bytearray(one.file)
                flipped[offset] ^= 0x10
                answer = self.put(daemon, f"/upload/{one.url}", bytes(flipped))
                self.refuse(400, "malformed request: ", answer)
                answer = self.put(daemon, f"/upload/{one.url}", one.file[:offset])
                self.refuse(400, "malformed request: ", answer)
            answer = self.put(daemon, f"/upload/{one.url}", one.file + b"x")
            self.refuse(400, "malformed request: ", answer)
            other = upload(f"other-{compression}", compression)
            answer = self.put(daemon, f"/upload/{one.url}", other.file)
            self.refuse(400, "the name must be the hash", answer)
        self.assert_nothing_is_left(daemon)
        self.assertEqual(201, self.put_nar(daemon, one)[0])
        self.assertEqual(201, self.put_narinfo(daemon, one)[0])
        self.assert_served_whole(daemon, one)

    def test_clients_that_leave_or_stall(self) -> None:
        """At every tenth of the body the client leaves or stops: nothing is stored."""
        daemon, one = self.served_by, upload("cut", "none", 2_000_000)
        stalled = []
        for offset in each_tenth(one.file):
            start = head(f"/upload/{one.url}", f"Content-Length: {len(one.file)}")
            with closing(self.connect(daemon)) as line:
                line.sendall(start + one.file[:offset])
            line = self.connect(daemon)
            line.sendall(start + one.file[:offset])
            stalled.append(line)
        for line in stalled:
            self.refuse(408, "no byte of the body came for 1 s", self.answer(line))
        self.assert_nothing_is_left(daemon)

    def test_bodies_that_are_too_large(self) -> None:
        """ncps refuses an upload that is too large before its body, and closes the connection.

        A client that waits for 100 Continue does not get it. If a client does not wait, ncps reads
        on for a while, so that the client sees the answer.
        """
        daemon, one = self.served_by, upload()
        for size in (100 * 1024**4, 100 * 1024**3, 64 * 1024**3 + 1):
            for path, words in (
                (f"/upload/{one.url}", "cache-upload-max-size"),
                (f"/upload/{one.digest}.narinfo", "at most"),
            ):
                for more in (("Expect: 100-continue",), ()):
                    line = self.connect(daemon)
                    fields = ("Host: x", f"Content-Length: {size}", *more)
                    lines = (f"PUT {path} HTTP/1.1", *fields, "", "")
                    line.sendall("\r\n".join(lines).encode())
                    if not more:
                        line.sendall(one.file)
                    self.refuse(413, words, self.answer(line))
                    self.assertIn("\nConnection: close", self.last_head)
        self.assert_nothing_is_left(daemon)

    def test_bodies_of_unknown_length(self) -> None:
        """HTTP/1.0 gets 411. Endless chunks get 413, and a trickle of chunks gets 408."""
        rules = ("--cache-upload-max-size", "10m", "--server-min-receive-rate", "1M")
        pace = ("--server-min-send-window", "2s", "--server-receive-stall-timeout", "1s")
        daemon, one = (
            self.daemon("http://127.0.0.1:9", options=(ALLOWED, *rules, *pace)),
            upload("x", "none"),
        )
        line = self.connect(daemon)
        line.sendall(f"PUT /upload/{one.url} HTTP/1.0\r\n\r\n".encode() + one.file)
        self.refuse(411, "Content-Length", self.answer(line))
        for piece, pause_s, status, words in (
            (bytes(STEP), 0.0, 413, "cache-upload-max-size"),
            (bytes(100), 0.05, 408, "bytes of the body came in"),
        ):
            line = self.connect(daemon)
            line.sendall(head(f"/upload/{one.url}", "Transfer-Encoding: chunked"))
            line.sendall(b"%x\r\n%b\r\n" % (len(ENDLESS), ENDLESS))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while not select.select([line], [], [], pause_s)[0]:
                    line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.refuse(status, words, self.answer(line))
        self.assert_nothing_is_left(daemon)

    def test_narinfos_with_false_facts(self) -> None:
        """The answer names each contradiction; the log has no text of the narinfo."""
        daemon, one, other = self.served_by, upload("one"), upload("other")
        self.put_nar(daemon, one)
        text = one.narinfo.render()
        name = one.narinfo.store_path.base.encode()
        for old, new, words in (
            (b"StorePath: /nix/store/", b"StorePath: /gnu/store/", "/nix/store"),
            (one.digest.encode(), other.digest.encode(), "URL says"),
            (one.url.encode(), other.url.encode(), "upload the NAR before"),
            (one.url.encode(), b"nar/../../etc/passwd", ""),
            (b"NarSize: ", b"NarSize: 1", "NarSize"),
            (b"FileSize: ", b"FileSize: 1", "FileSize"),
            (b"Compression: xz", b"Compression: " + MARK, ""),
            (b"NarSize: ", b"NarSize: " + MARK, ""),
            (b"StorePath: /nix/store/" + name, b"StorePath: " + MARK, ""),
            (b"References: ", b"References: " + MARK, ""),
            (text, MARK, ""),
            (text, b"", ""),
            (text, b"\xff" * 1000, ""),
        ):
            changed = text.replace(old, new)
            self.assertNotEqual(text, changed, old)
            answer = self.put(daemon, f"/upload/{one.digest}.narinfo", changed)
            self.refuse(400, "malformed request: ", answer)
            self.assertIn(words, answer[1])
        self.assertEqual([], self.narinfos(daemon))
        self.assertNotIn(MARK.decode(), daemon.log)

    def test_many_at_once(self) -> None:
        """A hundred uploads, ten of them of one path: all succeed."""
        daemon = self.served_by
        alone = [upload(f"path-{number}", "zstd", 200_000) for number in range(AT_ONCE - 10)]
        shared = upload("shared", "none", 1_000_000)
        jobs: list[Callable[[], tuple[int, str]]] = [
            partial(self.put_nar, daemon, one) for one in (*alone, *[shared] * 10)
        ]
        statuses = [status for status, _ in self.at_once(*jobs)]
        self.assertEqual({201}, set(statuses[:-10]))
        self.assertLessEqual(set(statuses[-10:]), {200, 201})
        jobs = [partial(self.put_narinfo, daemon, one) for one in (*alone, *[shared] * 10)]
        statuses = [status for status, _ in self.at_once(*jobs)]
        self.assertLessEqual(set(statuses), {200, 201})
        for one in (alone[0], shared):
            self.assert_served_whole(daemon, one)
        self.assertEqual([], self.unfinished(daemon))


class TwoWorkersTests(UploadStage):
    def test_an_upload_is_visible_at_once_everywhere(self) -> None:
        """Two workers that have just answered 404 serve each path after its upload was answered."""
        origin = self.mounted()
        daemon = self.daemon(origin, options=(ALLOWED, "--workers", "2"))
        for number in range(5):
            one = upload(f"worker-{number}", "zstd", 20_000)
            targets = [
                f"{start}/{end}"
                for start in ("", "/upload")
                for end in (one.url, f"{one.digest}.narinfo")
            ]
            for target in targets * 4:
                self.assertEqual(404, self.ask(daemon, target).status)
            self.assertEqual(201, self.put_nar(daemon, one)[0])
            for _ in range(4):
                answer = self.ask(daemon, f"/upload/{one.url}", method="HEAD")
                self.assertEqual(200, answer.status)
            self.assertEqual(201, self.put_narinfo(daemon, one)[0])
            for target in targets * 4:
                self.assertEqual(200, self.ask(daemon, target).status, target)


class ForgedTests(UploadStage):
    def test_forged_signatures(self) -> None:
        """With a key for uploads, only its signatures over exactly these facts count."""
        rules = ("--cache-require-trusted-signature", "--cache-trusted-upload-key")
        daemon = self.daemon(
            "http://127.0.0.1:9", options=(ALLOWED, *rules, str(UPLOAD_KEY.public))
        )
        one, other = upload("one"), upload("other")
        self.put_nar(daemon, one)
        namesake = by(one, SecretKey.generate(UPLOAD_KEY.name))
        borrowed = evolve(one.narinfo, signatures=by(other).narinfo.signatures)
        stranger = by(one, SecretKey.generate("stranger-1"))
        for forged in (one, namesake, stranger, evolve(one, narinfo=borrowed)):
            self.refuse(403, "sign it first", self.put_narinfo(daemon, forged))
        self.assertEqual([], self.narinfos(daemon))
        self.assertEqual(201, self.put_narinfo(daemon, by(one))[0])
        self.assert_served_whole(daemon, one)


class FullDiskTests(UploadStage):
    def setUp(self) -> None:
        super().setUp()
        self.served_by = self.make_daemon(
            "http://127.0.0.1:9", options=(ALLOWED, "--cache-storage-min-free", "1m")
        )
        directory = self.served_by.directory / "tmp"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(directory)]
        done = subprocess.run(mount, capture_output=True, check=False)
        require(done.returncode == 0, "permission to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(directory)], check=True)
        self.served_by.start()

    def test_a_disk_without_room(self) -> None:
        """ncps refuses an announced size immediately, and an endless body when the disk is full."""
        daemon, one = self.served_by, upload()
        line = self.connect(daemon)
        fields = ("Content-Length: 10000000000", "Expect: 100-continue")
        line.sendall(head(f"/upload/{one.url}", *fields))
        self.refuse(507, "no room left", self.answer(line))
        line = self.connect(daemon)
        line.sendall(head(f"/upload/{upload('endless', 'none').url}", "Transfer-Encoding: chunked"))
        piece = ENDLESS + bytes(STEP - len(ENDLESS))
        sent = 0
        try:
            while sent < 3 * ROOM:
                line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                sent, piece = sent + STEP, bytes(STEP)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.refuse(507, "no room left", self.answer(line))
        self.assert_nothing_is_left(daemon)
        self.assertEqual(
            (201, 201), (self.put_nar(daemon, one)[0], self.put_narinfo(daemon, one)[0])
        )


class DeathTests(UploadStage):
    """The process dies between two steps of a publication, which a held lock delays."""

    def setUp(self) -> None:
        super().setUp()
        self.served_by = self.daemon("http://127.0.0.1:9", options=(ALLOWED,))

    def database(self) -> sqlite3.Connection:
        path = self.served_by.directory / "catalog.sqlite"
        connection = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def begin(self, path: str, data: bytes) -> socket.socket:
        """Send a complete upload, and do not wait for the answer."""
        line = self.connect(self.served_by)
        line.sendall(head(path, f"Content-Length: {len(data)}") + data)
        return line

    def reborn(self) -> None:
        self.served_by.kill()
        self.served_by.start()

    def test_steps_of_a_publication(self) -> None:
        """Killed after the rename or the sidecar, but before the row: no upload is there."""
        daemon, one = self.served_by, upload("step", "none", 300_000)
        database = self.database()
        database.execute("BEGIN IMMEDIATE")
        self.begin(f"/upload/{one.url}", one.file)
        wait_until(daemon.stored_nars, "the rename", daemon=daemon)
        daemon.kill()
        database.execute("ROLLBACK")
        self.reborn()
        self.assertEqual(404, self.ask(daemon, f"/upload/{one.digest}.narinfo").status)
        self.assertIn(self.put_nar(daemon, one)[0], (200, 201))
        self.assertEqual(201, self.put_narinfo(daemon, one)[0])
        self.assert_served_whole(daemon, one)
        one = upload("other-step", "none", 300_000)
        self.assertEqual(201, self.put_nar(daemon, one)[0])
        before = len(self.narinfos(daemon))
        database.execute("BEGIN IMMEDIATE")
        self.begin(f"/upload/{one.digest}.narinfo", one.narinfo.render())
        wait_until(lambda: len(self.narinfos(daemon)) > before, "the sidecar", daemon=daemon)
        daemon.kill()
        database.execute("ROLLBACK")
        self.reborn()
        self.assertEqual(404, self.ask(daemon, f"/upload/{one.digest}.narinfo").status)
        self.assertEqual(201, self.put_narinfo(daemon, one)[0])
        self.assert_served_whole(daemon, one)

    def test_a_database_that_goes_away(self) -> None:
        """A lock in the middle of an upload gives 503, and the same upload succeeds later."""
        daemon, one = self.served_by, upload("away", "none", 2_000_000)
        database = self.database()
        line = self.connect(daemon)
        line.sendall(head(f"/upload/{one.url}", f"Content-Length: {len(one.file)}"))
        line.sendall(one.file[:1_000_000])
        wait_until(lambda: self.spools(daemon), "the upload to begin", daemon=daemon)
        database.execute("BEGIN IMMEDIATE")
        line.sendall(one.file[1_000_000:])
        status, text = self.answer(line)
        self.assertEqual(503, status, text)
        self.assertEqual(404, self.ask(daemon, f"/upload/{one.digest}.narinfo").status)
        database.execute("ROLLBACK")
        self.assertIn(self.put_nar(daemon, one)[0], (200, 201))
        self.assertEqual(201, self.put_narinfo(daemon, one)[0])
        self.assert_served_whole(daemon, one)
