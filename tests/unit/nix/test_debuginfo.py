"""Links to debug information, and the files with symbols in a NAR."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, Malformed, NotFound
from ncps.nix import debuginfo
from ncps.nix.debuginfo import (
    DebugFiles,
    DebugLink,
    MemberReader,
    SymbolSearch,
    is_build_id,
    member_of,
)
from ncps.nix.nar import NarParser
from tests.nars import Tree, archive

BUILD_ID = "ab" + "c" * 38
MEMBER = "lib/debug/.build-id/ab/" + "c" * 38 + ".debug"
BY_NIX = (
    b'{"archive":"../nar/0a7px5v5rcbfl45xsd9qkc79xg7f8ws6p3dbfcblf3fk0866f1kd.nar","member":"'
    + MEMBER.encode()
    + b'"}'
)
"""A text that Nix 2.26.3 has written."""
SYMBOLS = b"\x7fELF" + bytes(range(256)) * 40
TREE: Tree = {
    b"lib": {
        b"debug": {
            b".build-id": {
                b"ab": {
                    b"c" * 38 + b".debug": SYMBOLS,
                    b"c" * 38 + b".executable": ("symlink", b"/nix/store/x"),
                    b"c" * 37 + b".debug": b"a short name",
                    b"e" * 38 + b".debug": ("symlink", b"a link"),
                }
            }
        }
    },
    b"other": {b"lib": {b"debug": {b".build-id": {b"ab": {b"d" * 38 + b".debug": b""}}}}},
}


class LinkTests(SynchronousTestCase):
    def test_link_is_that_of_nix(self) -> None:
        """A link is read and written as Nix does it."""
        link = DebugLink.parse(BY_NIX)
        self.assertEqual(MEMBER, link.member)
        self.assertEqual(BY_NIX, link.render())
        self.assertEqual(MEMBER, member_of(BUILD_ID))

    def test_other_texts_are_malformed(self) -> None:
        """Other JSON, and a member that leads out of the NAR, are no links."""
        for text in (
            b"",
            b"{}",
            b"[]",
            b"<html>",
            b'{"archive":"../nar/x.nar"}',
            b'{"archive":"../nar/x.nar","member":1}',
            b'{"archive":"","member":"a"}',
            b'{"archive":"../nar/x.nar","member":"../a"}',
            b'{"archive":"../nar/x.nar","member":"/a"}',
            b'{"archive":"../nar/x.nar","member":"a\\u0000"}',
            b'{"archive":"' + b"x" * 5000 + b'","member":"a"}',
            b"[" * 4000,
        ):
            with self.assertRaises(Malformed):
                DebugLink.parse(text)

    def test_build_ids_have_twenty_bytes(self) -> None:
        """A build ID has 40 lower-case hexadecimal digits."""
        self.assertTrue(is_build_id(BUILD_ID))
        for text in ("", BUILD_ID[1:], BUILD_ID + "0", BUILD_ID.upper(), "g" * 40, BUILD_ID + "\n"):
            self.assertFalse(is_build_id(text))


class DebugFilesTests(SynchronousTestCase):
    def found(self) -> list[str]:
        files = DebugFiles()
        parser = NarParser(files)
        parser.feed(archive(TREE))
        parser.end()
        return files.build_ids

    def test_files_with_symbols_are_found(self) -> None:
        """Only regular files in the directory of Nix count."""
        self.assertEqual([BUILD_ID], self.found())

    def test_their_number_is_bounded(self) -> None:
        """Beyond `MAX_FOUND` no further file is found."""
        self.patch(debuginfo, "MAX_FOUND", 0)
        self.assertEqual([], self.found())


BEFORE: Tree = {b"a": b"", b"etc": {b"lib": {b"debug": b""}}, b"lib": {b"d": {b"x": b""}}}
IDS: Tree = {b"ab": {b"c" * 38 + b".debug": SYMBOLS}}
PLACE: Tree = {b".build-id": IDS}


class SymbolSearchTests(SynchronousTestCase):
    def search(self, tree: Tree | bytes, piece: int = 4096) -> tuple[list[str], SymbolSearch]:
        nar, search = archive(tree), SymbolSearch()
        for start in range(0, len(nar), piece):
            search.feed(nar[start : start + piece])
        return list(search.build_ids), search

    def test_it_finds_the_files_of_a_listing(self) -> None:
        """The search finds the same files as a listing, among any names and in any pieces."""
        for tree in (
            TREE,
            {
                b"a": b"",
                b"etc": {b"lib": b""},
                b"lib": {b"a": {b"b": b"c"}, b"debug": PLACE, b"e": b""},
                b"lib64": b"",
            },
            {
                b"lib": {
                    b"debug": {b".build": b"x", b".build-id": IDS, b".build-id2": b"", b"a": b""}
                }
            },
            {
                b"lib": {
                    b"debug": {
                        b".build-id": {b"aa": b"no folder", b"ab": {b"c" * 38 + b".debug": b""}}
                    }
                }
            },
            {b"lib": ("symlink", b"x"), b"lib2": {b"debug": PLACE}},
            {b"lib": {b"debug": b"a file", b"x": {b"debug": PLACE}}},
            {b"lib": {b"debug": {b".build-id": b"a file"}}},
            {b"a": {b"lib": {b"debug": PLACE}}, b"b": PLACE},
            BEFORE,
            {},
            b"a file",
        ):
            parser = NarParser()
            parser.feed(archive(tree))
            expected = debuginfo.build_ids_in(parser.finish())
            for piece in (1, 7, 4096):
                self.assertEqual(expected, self.search(tree, piece)[0], (tree, piece))

    def test_it_is_bounded(self) -> None:
        """The search ends after the directory, and after too many other files."""
        names = {b"%05d" % number: b"" for number in range(debuginfo.MAX_BEFORE + 1)}
        before: Tree = {b"include": names, b"lib": {b"debug": PLACE}}
        self.assertEqual([], self.search(before)[0])
        names.popitem()
        names.popitem()
        self.assertEqual([BUILD_ID], self.search(before)[0])
        rest = SymbolSearch()
        rest.feed(archive({b"lib": {b"debug": PLACE, b"e": b"", b"f": b"x" * 100}})[:-50])
        rest.feed(memoryview(b"garbage"))
        self.assertEqual((BUILD_ID,), rest.build_ids)
        rest = SymbolSearch()
        rest.feed(b"garbage" * 100)
        self.assertEqual((), rest.build_ids)


class MemberReaderTests(SynchronousTestCase):
    def read(self, path: str, piece: int = 64, nar: bytes | None = None) -> bytes:
        nar, reader = nar or archive(TREE), MemberReader(path)
        got = b""
        for start in range(0, len(nar), piece):
            got += b"".join(reader.feed(nar[start : start + piece]))
        reader.finish()
        self.assertTrue(reader.is_done)
        self.assertEqual(len(got), reader.size)
        return got

    def test_file_comes_out_of_its_nar(self) -> None:
        """Exactly the bytes of the file are returned, for pieces of any size."""
        for piece in (1, 5, 64, 4096, 1_000_000):
            self.assertEqual(SYMBOLS, self.read(MEMBER, piece))
        self.assertEqual(b"abc", self.read("", nar=archive(b"abc")))
        self.assertEqual(b"", self.read("other/" + MEMBER.replace("c", "d"), nar=archive(TREE)))

    def test_only_regular_files_are_found(self) -> None:
        """A link, a directory or nothing at that place is no file."""
        for path in ("lib", "nothing", MEMBER.replace("c", "e"), MEMBER + "/x"):
            with self.assertRaises(NotFound):
                self.read(path)

    def test_invalid_nars_are_corrupt(self) -> None:
        """Bytes that are no NAR, and a NAR that ends too early, are errors."""
        with self.assertRaises(Corrupt):
            self.read(MEMBER, nar=b"garbage" * 100)
        with self.assertRaises(Corrupt):
            self.read(MEMBER, nar=archive(TREE)[:-8])
