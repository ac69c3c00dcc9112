"""Tests of hashes and their spellings."""

import contextlib
import hashlib
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.hashes import SIZES, Hash, sha256_of
from tests.fakes.samples import sri

EMPTY = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"

hashes = st.sampled_from(sorted(SIZES)).flatmap(
    lambda algorithm: st.builds(
        Hash, st.just(algorithm), st.binary(min_size=SIZES[algorithm], max_size=SIZES[algorithm])
    )
)


class HashTests(SynchronousTestCase):
    def test_printing_a_hash_gives_the_spelling_of_narinfos(self) -> None:
        """The canonical form is the algorithm, a colon and nix32."""
        empty = sha256_of(b"")
        self.assertEqual(str(empty), f"sha256:{EMPTY}")
        self.assertEqual(empty.nix32, EMPTY)
        self.assertEqual(empty.hex, hashlib.sha256(b"").hexdigest())
        self.assertEqual(empty, Hash.of_sha256(hashlib.sha256(b"").digest()))

    @given(hashes)
    def test_every_spelling_reads_as_the_same_hash(self, value: Hash) -> None:
        """All notations give the same hash, with a prefix or a known algorithm."""
        base64 = b64encode(value.digest).decode()
        for digest in (value.nix32, value.hex, value.hex.upper(), base64):
            self.assertEqual(Hash.parse(f"{value.algorithm}:{digest}"), value)
            self.assertEqual(Hash.parse(digest, value.algorithm), value)
            self.assertEqual(Hash.parse(f"{value.algorithm}:{digest}", value.algorithm), value)
        self.assertEqual(Hash.parse(sri(value)), value)
        self.assertEqual(Hash.parse(str(value)), value)

    @given(st.text(max_size=70), st.sampled_from([None, "sha256", "sha1", "crc"]))
    def test_garbage_is_refused(self, text: str, algorithm: str | None) -> None:
        """Every text is parsed or raises Malformed."""
        with contextlib.suppress(Malformed):
            Hash.parse(text, algorithm)

    def test_wrong_spellings_are_refused_with_the_reason(self) -> None:
        """Unknown algorithms, wrong lengths and wrong characters have their own messages."""
        for text, reason in (
            (EMPTY, "without algorithm"),
            (f"crc32:{EMPTY}", "unknown hash algorithm"),
            (f"crc32-{EMPTY}", "unknown hash algorithm"),
            (f"sha256:{EMPTY[1:]}", "neither nix32 nor"),
            (f"sha256:{'e' * 52}", "foreign characters"),
            (f"sha256:{'z' * 52}", "leftover bits"),
            (f"sha256:{'g' * 64}", "foreign characters"),
            (f"sha256:{' ' * 64}", "foreign characters"),
            (f"sha256:{b64encode(bytes(31)).decode()}", "32 bytes, not 31"),
            ("sha256:é", "neither nix32 nor"),
        ):
            with self.assertRaises(Malformed) as caught:
                Hash.parse(text)
            self.assertIn(reason, str(caught.exception))

    def test_a_prefix_that_contradicts_the_algorithm_is_refused(self) -> None:
        """A prefix of another algorithm than the expected one is refused."""
        for text in (f"sha256:{EMPTY}", sri(sha256_of(b""))):
            with self.assertRaises(Malformed):
                Hash.parse(text, "sha1")

    def test_a_digest_of_the_wrong_size_cannot_be_made(self) -> None:
        """A Hash always has the length of its algorithm."""
        with self.assertRaises(Malformed):
            Hash.of_sha256(bytes(20))
