"""Tests of nix32."""

import contextlib
import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix import base32


class Base32Tests(SynchronousTestCase):
    def test_known_hashes_are_written_as_nix_writes_them(self) -> None:
        """The SHA-256 of no bytes and of Nix's own example look as `nix-hash` prints them."""
        self.assertEqual(
            base32.encode(hashlib.sha256(b"").digest()),
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        )
        self.assertEqual(base32.encode(b""), "")
        self.assertEqual(base32.encode(b"\x1f"), "0z")

    @given(st.binary(max_size=70))
    def test_any_bytes_survive_the_round_trip(self, data: bytes) -> None:
        """Bytes written in nix32 read as the same bytes."""
        text = base32.encode(data)
        self.assertEqual(len(text), (len(data) * 8 + 4) // 5)
        self.assertEqual(base32.decode(text), data)

    @given(st.text(alphabet=base32.ALPHABET, max_size=60))
    def test_any_text_of_the_alphabet_is_read_exactly_or_refused(self, text: str) -> None:
        """Two texts never mean the same bytes."""
        try:
            data = base32.decode(text)
        except Malformed:
            return
        self.assertEqual(base32.encode(data), text)

    @given(st.text(max_size=60))
    def test_garbage_is_refused(self, text: str) -> None:
        """Every text is decoded or raises Malformed."""
        with contextlib.suppress(Malformed):
            self.assertEqual(base32.encode(base32.decode(text)), text)

    def test_foreign_characters_are_refused(self) -> None:
        """Other letters, capitals, and the signs and blanks that int() accepts are refused."""
        for wrong in "eotuEA_+- \n=é\u0661":
            with self.assertRaises(Malformed):
                base32.decode("0" * 51 + wrong)
            with self.assertRaises(Malformed):
                base32.decode(wrong + "0" * 51)

    def test_leftover_bits_are_refused(self) -> None:
        """Fifty-two digits hold 260 bits, of which the first four must be zero."""
        self.assertEqual(len(base32.decode("1" + "z" * 51)), 32)
        with self.assertRaises(Malformed):
            base32.decode("2" + "z" * 51)

    def test_impossible_lengths_are_refused(self) -> None:
        """A text with an impossible number of digits is refused."""
        for length in (1, 3, 6, 51, 54):
            with self.assertRaises(Malformed):
                base32.decode("0" * length)
