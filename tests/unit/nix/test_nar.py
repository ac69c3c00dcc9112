"""Tests of the NAR parser."""

import contextlib
import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt
from ncps.nix import nar
from ncps.nix.hashes import sha256_of
from ncps.nix.nar import Directory, Listing, NarParser, Regular, Symlink
from tests.fixtures import CLOSURE, NIX
from tests.nars import Tree, archive, directory, entry, text, written

SRC = (NIX / "src.nar").read_bytes()


def parsed(pieces: Iterable[bytes | memoryview]) -> Listing:
    parser = NarParser()
    for piece in pieces:
        parser.feed(piece)
    return parser.finish()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


names = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
targets = st.binary(min_size=1, max_size=40).filter(lambda target: b"\0" not in target)
trees: st.SearchStrategy[Any] = st.recursive(
    st.binary(max_size=40)
    | st.tuples(st.just("executable"), st.binary(max_size=40))
    | st.tuples(st.just("symlink"), targets),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def matches(tree: Tree, node: nar.Node, whole: bytes) -> bool:
    """Return whether the listing is that of the tree, with the right offsets."""
    if isinstance(tree, dict):
        assert isinstance(node, Directory)
        expected = {name.decode("utf-8", "surrogateescape"): tree[name] for name in sorted(tree)}
        return list(node.entries) == list(expected) and all(
            matches(expected[name], node.entries[name], whole) for name in expected
        )
    if isinstance(tree, tuple) and tree[0] == "symlink":
        return node == Symlink(tree[1].decode("utf-8", "surrogateescape"))
    executable, data = (True, tree[1]) if isinstance(tree, tuple) else (False, tree)
    assert isinstance(node, Regular)
    found = whole[node.offset : node.offset + node.size]
    return node.executable is executable and found == data


class NarParserTests(SynchronousTestCase):
    def assert_corrupt(self, data: bytes, reason: str) -> None:
        """Check the error in one piece and byte by byte."""
        for pieces in ([data], [memoryview(data)], cut(data, 1)):
            with self.assertRaises(Corrupt) as caught:
                parsed(pieces)
            self.assertIn(reason, str(caught.exception))

    def test_the_smallest_example_is_the_one_of_the_books(self) -> None:
        """A file of six bytes makes a NAR of 120 bytes with the hash of Nix."""
        data = archive(b"hello\n")
        self.assertEqual(len(data), 120)
        self.assertEqual(
            sha256_of(data).nix32, "04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw"
        )
        self.assertEqual(parsed([data]), Listing(Regular(6, False, 96)))

    def test_a_dump_of_nix_is_listed_as_nix_lists_it(self) -> None:
        """The listing of a real tree is that of Nix, for pieces of any size."""
        expected = json.loads((NIX / f"{CLOSURE[-1]}.ls").read_bytes())
        for size in (1, 2, 3, 5, 7, 8, 16, 63, 64, 100, 1000, 10_000):
            self.assertEqual(parsed(cut(SRC, size)).to_json(), expected)
        found = json.loads(json.dumps(parsed([memoryview(SRC)]).to_json()))
        self.assertEqual(found, expected)

    def test_single_files_are_listed_as_nix_lists_them(self) -> None:
        """The listing of a single file is that of Nix."""
        for digest, size in zip(CLOSURE[:3], (6, 107, 55), strict=True):
            expected = json.loads((NIX / f"{digest}.ls").read_bytes())
            self.assertEqual(parsed([archive(bytes(size))]).to_json(), expected)

    @given(trees, st.integers(1, 200))
    def test_any_tree_is_listed(self, tree: Any, size: int) -> None:
        """The listing matches the tree, in one piece or many, copied or not."""
        data = archive(tree)
        listing = parsed([data])
        self.assertTrue(matches(tree, listing.root, data))
        self.assertEqual(parsed(cut(data, size)), listing)
        self.assertEqual(parsed(map(memoryview, cut(data, size))), listing)

    @given(trees)
    def test_a_truncated_nar_is_corrupt(self, tree: Any) -> None:
        """A truncated NAR is always Corrupt."""
        data = archive(tree)
        for length in range(0, len(data), 1 + len(data) // 40):
            with self.assertRaises(Corrupt):
                parsed([data[:length]])

    def test_a_truncated_dump_is_corrupt(self) -> None:
        """A dump that lacks one byte is Corrupt."""
        for length in range(len(SRC)):
            with self.assertRaises(Corrupt):
                parsed([SRC[:length]])

    @given(st.integers(0, len(SRC) - 1), st.integers(1, 255))
    def test_damage_is_corrupt_or_in_the_contents(self, where: int, flip: int) -> None:
        """A flipped bit outside the contents is Corrupt or changes a name."""
        data = bytearray(SRC)
        data[where] ^= flip
        with contextlib.suppress(Corrupt):
            parsed([bytes(data)])

    @given(st.binary(max_size=200))
    def test_garbage_is_corrupt(self, data: bytes) -> None:
        """For all bytes, at the start or later on, the only error is Corrupt."""
        for start in (b"", text(b"nix-archive-1"), SRC[:200], SRC[:1000]):
            with contextlib.suppress(Corrupt):
                parsed([start + data])

    def test_trailing_bytes_are_corrupt(self) -> None:
        """After the last parenthesis nothing follows, in the same piece or the next."""
        for tree in (b"", ("symlink", b"x"), {}, {b"a": b""}):
            self.assert_corrupt(archive(tree) + b"\0", "follows the end")

    def test_another_file_is_recognised_at_once(self) -> None:
        """The first strings suffice; no more input is needed."""
        parser = NarParser()
        with self.assertRaises(Corrupt) as caught:
            parser.feed(b"<!DOCTYPE html><html><body>404")
        self.assertIn("no NAR", str(caught.exception))
        parser = NarParser()
        with self.assertRaises(Corrupt):
            parser.feed(text(b"nix-archive-1") + text(b"(", b"type", b"fifo", b")") + bytes(60))

    def test_padding_must_be_zero(self) -> None:
        """A tree has exactly one NAR, so padding with other bytes is Corrupt."""
        for tree in (b"abc", ("symlink", b"abc"), {b"abc": b""}):
            data = bytearray(archive(tree))
            data[data.index(b"abc") + 3] = 1
            self.assert_corrupt(bytes(data), "padding")

    def test_names_must_rise(self) -> None:
        """A repeated name, and a name out of order, are Corrupt."""
        for first, second in ((b"a", b"a"), (b"b", b"a"), (b"a", b"B"), (b"aa", b"a")):
            nodes = directory(entry(first, written(b"")), entry(second, written(b"")))
            self.assert_corrupt(text(b"nix-archive-1") + nodes, "order")

    def test_names_that_could_climb_are_refused(self) -> None:
        """Names with separators or NUL, dots alone, empty and too long names are refused."""
        for name in (b"a/b", b"/", b"a\0", b".", b".."):
            self.assert_corrupt(archive({name: b""}), "is no name")
        for name in (b"", b"x" * 256):
            self.assert_corrupt(archive({name: b""}), "a name has")
        for name in (b"...", b".a", b"..a", b"x" * 255, b"\xff"):
            self.assertTrue(matches({name: b""}, parsed([archive({name: b""})]).root, b""))

    def test_targets_are_bounded(self) -> None:
        """The target of a link is not empty, and not longer than the kernel allows."""
        for target in (b"", b"x" * 4096):
            self.assert_corrupt(archive(("symlink", target)), "target")
        self.assert_corrupt(archive(("symlink", b"a\0b")), "NUL")
        longest = parsed([archive({b"a": ("symlink", b"x" * 4095)})])
        self.assertEqual(longest.root, Directory({"a": Symlink("x" * 4095)}))

    def test_impossible_lengths_are_refused_when_seen(self) -> None:
        """A length of 2^64-1 is refused immediately."""
        for tree in (b"12345678", {b"a": ("executable", b"12345678")}):
            data = archive(tree)
            where = data.index(b"12345678") - 8
            with self.assertRaises(Corrupt) as caught:
                NarParser().feed(data[:where] + b"\xff" * 8)
            self.assertIn("a file of", str(caught.exception))
        parser = NarParser()
        parser.feed(text(b"nix-archive-1", b"(", b"type", b"regular", b"contents"))
        parser.feed((2**63 - 1).to_bytes(8, "little"))
        with self.assertRaises(Corrupt):
            parser.finish()

    def test_depth_is_bounded(self) -> None:
        """Sixty-four levels below the root are read, more are not."""

        def nested(levels: int) -> bytes:
            tree: Tree = {}
            for _ in range(levels):
                tree = {b"d": tree}
            return archive(tree)

        self.assertIsInstance(parsed([nested(64)]).to_json(), dict)
        self.assert_corrupt(nested(65), "64 levels")

    def test_the_number_of_entries_is_bounded(self) -> None:
        """Too many empty files are refused."""
        self.patch(nar, "MAX_ENTRIES", 10)
        files: dict[bytes, Any] = {b"%d" % i: b"" for i in range(10)}
        self.assertIsInstance(parsed([archive(files)]), Listing)
        self.assert_corrupt(archive(files | {b"d": {}}), "10 entries")

    def test_the_format_is_one_only(self) -> None:
        """A missing, repeated or misplaced part is an error."""
        head = text(b"nix-archive-1")
        good = written(b"")
        for data, reason in (
            (head + text(b"(", b"type", b"regular", b")") + bytes(99), "object"),
            (head + text(b"(", b"type", b"symlink", b")") + bytes(99), "object"),
            (head + text(b"(", b"type", b"regular", b"executable", b"x") + bytes(99), "object"),
            (head + text(b"type", b"regular", b"contents", b"", b")") + bytes(99), "object"),
            (head + directory(text(b"entry", b"(", b"node") + good), "entry"),
            (head + directory(text(b"entry", b"(", b"name", b"a", b")") + bytes(99)), "node"),
            (head + directory(good), "entry"),
            (head + good[:-16] + text(b"contents", b"", b")"), "parenthesis"),
            (head + good[:-16] + text(b"("), "parenthesis"),
            (text(b"nix-archive-2") + good, "no NAR"),
        ):
            self.assert_corrupt(data, reason)

    def test_contents_are_passed_over_in_little_memory(self) -> None:
        """Contents of files are skipped without keeping them."""
        size = 64 * 1024 * 1024
        data = archive({b"a": b"", b"big": b"", b"c": b"x"})
        where = data.index(b"big") + 8 + 16 + 64  # after name, node and head: the length
        head, rest = data[:where], data[where + 8 :]
        piece = bytes(1024 * 1024)
        parser = NarParser()
        parser.feed(head + size.to_bytes(8, "little"))
        tracemalloc.start()
        for _ in range(size // len(piece)):
            parser.feed(memoryview(piece))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(peak, 10_000)
        parser.feed(rest)
        root = parser.finish().root
        assert isinstance(root, Directory)
        self.assertEqual(root.entries["big"], Regular(size, False, where + 8))
        last = root.entries["c"]
        assert isinstance(last, Regular)
        self.assertEqual(last.offset, data.index(b"x", where) + size)
