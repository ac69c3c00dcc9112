"""Faults that the storms have found, each in a test of its own."""

from __future__ import annotations

import hashlib

from tests.e2e.daemon import Daemon
from tests.system.caches import Dialect, StorePath, compress, pack_nar, to_base32
from tests.system.faults import Delay, Short, Status, WrongBytes
from tests.system.origin import Origin
from tests.system.stage import Stage


class FindingTests(Stage):
    """Faults that only a storm had found."""

    def test_unfinished_files_of_dead_processes_are_swept(self) -> None:
        """A start removes unfinished files from all directories; files of other programs stay."""
        daemon = self.daemon(self.origin().url)
        daemon.stop()
        places = (daemon.directory / "tmp", daemon.storage / "store" / "tmp")
        for place in places:
            for name in ("spool-99-0123456789abcdef", "temp-99-0123456789abcdef", "strange"):
                (place / name).write_bytes(b"left behind")
        daemon.start()
        left = [[path.name for path in place.iterdir()] for place in places]
        self.assertEqual([["strange"], ["strange"]], left)

    def test_lost_nar_without_upstream_hash_comes_from_elsewhere(self) -> None:
        """A NAR lost from the store is fetched from another upstream that names no FileHash."""
        path = self.cache.add(5000, compression="zstd", dialect=Dialect.BARE)
        first, second = self.mounted(), self.mounted()
        daemon = self.daemon(first, second)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        [stored] = daemon.stored_nars()
        stored.unlink()
        self.cache.mount_path(first, path, "", Status(404))
        self.assert_served(daemon, path)

    def lying(self, path: StorePath, **fields: str) -> Origin:
        """Return an origin with a false narinfo of one path."""
        origin = self.mounted()
        origin.serve(f"/{path.digest}.narinfo", path.narinfo(**fields))
        return origin

    def late(self, path: StorePath) -> Origin:
        """Return an honest origin that is too slow to win against the first upstream."""
        origin = self.mounted()
        origin.serve(f"/{path.digest}.narinfo", path.narinfo(), Delay(0.6))
        return origin

    def assert_corrected(self, daemon: Daemon, path: StorePath) -> None:
        """Check that the narinfo has the right facts after the file was stored."""
        self.wait_until_stored(daemon, path)
        told, true = self.narinfo(daemon, path).fields, dict(path.fields())
        for field in ("FileHash", "FileSize", "NarHash", "NarSize"):
            self.assertEqual(true[field], told[field])

    def test_false_file_hash_affects_no_client(self) -> None:
        """A right NAR with a false FileHash is served and stored, and its narinfo is corrected."""
        path = self.cache.add(200_000)
        liar = self.lying(path, FileHash="sha256:" + "0" * 52)
        daemon = self.daemon(liar)
        self.assert_served(daemon, path)
        self.assert_corrected(daemon, path)
        self.wait_for_log(daemon, "its narinfo is wrong, the NAR is right", "FileHash")

    def test_false_file_size_affects_no_client(self) -> None:
        """The same with a FileSize that is too large or too small."""
        for compression, size in (("xz", "7"), ("zstd", "7000000"), ("bzip2", "70")):
            path = self.cache.add(200_000, compression=compression)
            daemon = self.daemon(self.lying(path, FileSize=size))
            self.assert_served(daemon, path)
            self.assert_corrected(daemon, path)

    def test_false_url_affects_no_client(self) -> None:
        """A URL without a file does no harm if another upstream has the file."""
        path = self.cache.add(200_000)
        liar = self.lying(path, URL=f"nar/{'1' * 52}.nar.xz")
        liar.withdraw(path.nar_target)
        daemon = self.daemon(liar, self.late(path))
        self.assert_served(daemon, path)
        self.assert_corrected(daemon, path)

    def test_false_nar_of_one_upstream_affects_no_client(self) -> None:
        """A narinfo and a file that agree on wrong bytes do no harm if ncps notices it soon."""
        path = self.cache.add(5000, compression="zstd")
        evil = compress(pack_nar(b"evil" * 1000), "zstd")
        name = to_base32(hashlib.sha256(evil).digest())
        fields = {"FileHash": f"sha256:{name}", "FileSize": str(len(evil))}
        liar = self.lying(path, URL=f"nar/{name}.nar.zst", **fields)
        liar.serve(f"/nar/{name}.nar.zst", evil)
        daemon = self.daemon(liar, self.late(path))
        self.assert_served(daemon, path)
        self.assert_corrected(daemon, path)

    def test_only_upstream_in_doubt_is_asked_again(self) -> None:
        """ncps asks an upstream with a false narinfo again if there is no other one."""
        path = self.cache.add(5000)
        origin = self.lying(path, URL=f"nar/{'1' * 52}.nar.xz", FileHash="sha256:" + "0" * 52)
        daemon = self.daemon(origin)
        self.assertEqual(404, self.nar(daemon, path).status)
        self.cache.mount_path(origin, path)
        self.assert_served(daemon, path)

    def test_piece_of_a_nar_whose_size_was_wrong_is_no_answer(self) -> None:
        """No client gets a short piece because of the false size of an upstream."""
        path = self.cache.add(5000, compression="zstd", dialect=Dialect.BARE)
        liar = self.origin()
        self.cache.mount(liar, "", Short(4000))
        daemon = self.daemon(liar, self.mounted())
        target = self.nar_target(daemon, path)
        answer = self.ask(daemon, target, Range="bytes=857-")
        if answer.status != 502:
            self.assertEqual((206, path.file[857:]), (answer.status, answer.body))
        again = self.ask(daemon, target, Range="bytes=857-")
        self.assertEqual((206, path.file[857:]), (again.status, again.body))

    def test_head_does_not_repeat_an_unsigned_size(self) -> None:
        """Without a FileSize, HEAD has no length before ncps has the bytes, and then theirs."""
        path = self.cache.add(5000, compression="zstd", dialect=Dialect.BARE)
        liar = self.origin()
        self.cache.mount(liar, "", Short(4000))
        daemon = self.daemon(liar, self.mounted())
        target = self.nar_target(daemon, path)
        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual((200, None), (head.status, head.headers.get("content-length")))
        self.nar(daemon, path)  # fails visibly, if the size was sent by then
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual(str(len(path.file)), head.headers.get("content-length"))

    def swapping(self, compression: str) -> tuple[StorePath, Origin]:
        """Return a path and an origin that names and serves another path's file for it."""
        path, other = (self.cache.add(size, compression=compression) for size in (5000, 9000))
        fields = dict(other.fields())
        named = {name: fields[name] for name in ("URL", "FileHash", "FileSize")}
        return path, self.lying(path, **named)

    def test_head_repeats_no_size_of_another_paths_file(self) -> None:
        """HEAD has no unsigned length, even if the narinfo and its upstream agree on it."""
        for compression in ("zstd", "xz"):
            path, liar = self.swapping(compression)
            daemon = self.daemon(liar)
            head = self.ask(daemon, self.nar_target(daemon, path), method="HEAD")
            self.assertEqual((200, None), (head.status, head.headers.get("content-length")))

    def test_piece_of_a_nar_whose_narinfo_names_a_longer_one(self) -> None:
        """The file of the longer one costs one attempt; then the piece is of the right file."""
        for compression in ("zstd", "xz"):
            path, liar = self.swapping(compression)
            daemon = self.daemon(liar, self.late(path))
            target = self.nar_target(daemon, path)
            self.assertEqual(502, self.ask(daemon, target, Range="bytes=100-").status)
            again = self.ask(daemon, target, Range="bytes=100-")
            self.assertEqual((206, path.file[100:]), (again.status, again.body))

    def test_wrong_upstream_that_answers_first_hides_no_path(self) -> None:
        """ncps remembers a file that was wrong on arrival, and does not use its narinfo again."""
        path = self.cache.add(200_000, compression="zstd", dialect=Dialect.BARE)
        other = self.cache.add(9000, compression="zstd")
        fields = dict(other.fields())
        liar = self.lying(path, **{name: fields[name] for name in ("URL", "FileHash", "FileSize")})
        liar.withdraw(path.nar_target)
        honest = self.late(path)
        honest.serve(path.nar_target, path.file, WrongBytes(len(path.file) - 30))
        daemon = self.daemon(liar, honest)
        for _ in range(3):
            self.ask(daemon, self.nar_target(daemon, path))
        honest.serve(path.nar_target, path.file)
        said = [self.ask(daemon, self.nar_target(daemon, path)) for _ in range(4)]
        found = [(answer.status, answer.body == path.file) for answer in said]
        self.assertIn((200, True), found)
