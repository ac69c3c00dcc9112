"""Listings are those of Nix, to the byte."""

from __future__ import annotations

import json
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.listing import ListingWriter, TooLong, check_listing
from ncps.nix.nar import NarParser
from tests.nars import Tree, archive

BY_NIX = (
    '{"root":{"entries":{"bad":{"target":"a/b","type":"symlink"},"bin":{"entries":{"x":'
    '{"executable":true,"narOffset":592,"size":4,"type":"regular"}},"type":"directory"},"empty":'
    '{"entries":{},"type":"directory"},"lib":{"entries":{"debug":{"entries":{".build-id":{"entries"'
    ':{"ab":{"entries":{"cccccccccccccccccccccccccccccccccccccc.debug":{"narOffset":1576,"size":80,'
    '"type":"regular"}},"type":"directory"}},"type":"directory"}},"type":"directory"}},"type":'
    '"directory"},"link":{"target":"bin/x","type":"symlink"},"é\\"\\\\\\n name":{"narOffset":2168,'
    '"size":2,"type":"regular"}},"type":"directory"},"version":1}'
)
"""The text that Nix 2.26.3 has written for `TREE`."""

TREE: Tree = {
    b"bin": {b"x": ("executable", b"#!x\n")},
    'é"\\\n name'.encode(): b"hi",
    b"link": ("symlink", b"bin/x"),
    b"empty": {},
    b"bad": ("symlink", b"a/b"),
    b"lib": {b"debug": {b".build-id": {b"ab": {b"c" * 38 + b".debug": b"ELFDEBUG" * 10}}}},
}


def listed(tree: Tree, piece: int = 100, max_size: int = 1_000_000) -> bytes:
    nar, writer = archive(tree), ListingWriter(max_size)
    parser = NarParser(writer)
    for start in range(0, len(nar), piece):
        parser.feed(nar[start : start + piece])
    parser.end()
    return writer.text()


class ListingTests(SynchronousTestCase):
    def test_listing_is_that_of_nix(self) -> None:
        """The listing has the bytes of Nix 2.26.3, for pieces of any size."""
        for piece in (1, 7, 100, 10_000):
            self.assertEqual(BY_NIX.encode(), listed(TREE, piece))

    def test_roots_that_are_no_directories_are_listed(self) -> None:
        """A NAR may be a single file or a single link."""
        self.assertEqual(
            b'{"root":{"narOffset":96,"size":3,"type":"regular"},"version":1}', listed(b"abc")
        )
        self.assertEqual(
            b'{"root":{"target":"x","type":"symlink"},"version":1}', listed(("symlink", b"x"))
        )
        self.assertEqual(b'{"root":{"entries":{},"type":"directory"},"version":1}', listed({}))

    def test_names_without_a_text_are_replaced(self) -> None:
        """With a name that is not UTF-8 the listing is still JSON."""
        found = json.loads(listed({b"a\xff": b"", b"b": b""}))
        self.assertEqual(["a?", "b"], list(found["root"]["entries"]))

    def test_long_listing_is_refused(self) -> None:
        """A listing beyond the limit of memory is refused."""
        tree = {b"file %d" % number: b"" for number in range(20_000)}
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        nar, writer = archive(tree), ListingWriter(10_000)
        parser = NarParser(writer)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with self.assertRaises(TooLong):
            for start in range(0, len(nar), 1000):
                parser.feed(nar[start : start + 1000])
        self.assertLess(tracemalloc.get_traced_memory()[1] - before, 200_000)

    def test_listings_are_distinguished_from_other_texts(self) -> None:
        """Only complete JSON of version 1 with a root is a listing."""
        check_listing(BY_NIX.encode())
        check_listing(b'{"version":1,"root":{"type":"regular","size":3,"narOffset":96}}')
        check_listing(b'{ "version": 1,\n "root": { "type": "regular" }\n}\n')
        for text in (
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"version":2,"root":{"type":"regular"}}',
            b'{"version":1,"root":[]}',
            b"[" * 100_000,
            BY_NIX.encode()[:-1],
            BY_NIX.encode()[1:],
            b'{"version":1,"root":{"type":"regular"}',
            b"\xff",
        ):
            with self.assertRaises(Malformed):
                check_listing(text)
