"""Tests of nix-cache-info."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.cacheinfo import MAX_SIZE, CacheInfo
from tests.fixtures import NIX

infos = st.builds(
    CacheInfo,
    store_dir=st.sampled_from(["/nix/store", "/other dir"]),
    want_mass_query=st.booleans(),
    priority=st.none() | st.integers(-1000, 1000),
)


class CacheInfoTests(SynchronousTestCase):
    def test_the_usual_text_is_read(self) -> None:
        """The three fields of cache.nixos.org are read."""
        self.assertEqual(
            CacheInfo.parse(b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"),
            CacheInfo(store_dir="/nix/store", want_mass_query=True, priority=40),
        )

    def test_the_text_of_nix_itself_is_read(self) -> None:
        """A file cache of Nix has only StoreDir."""
        info = CacheInfo.parse((NIX / "nix-cache-info").read_bytes())
        self.assertEqual(info, CacheInfo(want_mass_query=False, priority=None))

    def test_odd_texts_are_read(self) -> None:
        """Spaces, CRLF, unknown keys, another order, and missing parts are accepted."""
        for text in (
            b"  Priority :  30 \r\nWantMassQuery:1\r\nStoreDir:/nix/store",
            b"X-Some: thing\n\nnoise\nPriority: 30\nWantMassQuery: 1\nPriority: 50\n",
            b"\xff\xfe: \xff\nWantMassQuery: 1\nPriority: 30",
        ):
            info = CacheInfo.parse(text)
            self.assertEqual(info, CacheInfo(want_mass_query=True, priority=30))

    @given(infos)
    def test_any_value_survives_the_round_trip(self, info: CacheInfo) -> None:
        """A written text reads as the same value."""
        text = info.render()
        self.assertEqual(CacheInfo.parse(text), info)
        self.assertTrue(text.endswith(b"\n"))

    @given(st.binary(max_size=200))
    def test_garbage_is_refused(self, text: bytes) -> None:
        """Any bytes are parsed or raise Malformed."""
        with contextlib.suppress(Malformed):
            CacheInfo.parse(text)

    def test_other_texts_are_refused(self) -> None:
        """An HTML page, no bytes, no field, too many bytes, and a bad priority are refused."""
        for text in (
            b"<!DOCTYPE html>\n<a href='http://x'>StoreDir: /nix/store</a>",
            b"",
            b"hello\nworld: is on a line with blanks in its key"[:5],
            b"not a key: x",
            b"StoreDir: /nix/store\n" + b"x" * MAX_SIZE,
            b"Priority: high",
            b"Priority: 1e3",
            b"Priority: 99999999999",
            b"StoreDir: relative",
            b"StoreDir: /a\0b",
            b"StoreDir: /a\xcb",
        ):
            with self.assertRaises(Malformed):
                CacheInfo.parse(text)
