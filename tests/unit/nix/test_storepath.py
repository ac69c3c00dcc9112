"""Tests of store paths."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.storepath import StorePath, is_digest

DIGEST = "8wims9f42avjwi9w1grd6m2c4nsx8xc5"

store_paths = st.builds(
    StorePath,
    st.text(alphabet=ALPHABET, min_size=32, max_size=32),
    st.from_regex(r"[A-Za-z0-9+_?=][A-Za-z0-9+._?=-]{0,40}", fullmatch=True),
)


class StorePathTests(SynchronousTestCase):
    def test_a_full_path_is_taken_apart(self) -> None:
        """Hash part and name are read, from the whole path and from its base name."""
        path = StorePath.parse(f"/nix/store/{DIGEST}-hello-2.12.1")
        self.assertEqual((path.digest, path.name), (DIGEST, "hello-2.12.1"))
        self.assertEqual(path.base, f"{DIGEST}-hello-2.12.1")
        self.assertEqual(str(path), f"/nix/store/{DIGEST}-hello-2.12.1")
        self.assertEqual(StorePath.parse_base(path.base), path)

    @given(store_paths)
    def test_any_path_survives_the_round_trip(self, path: StorePath) -> None:
        """A written path is read as the same path."""
        self.assertEqual(StorePath.parse(str(path)), path)
        self.assertEqual(StorePath.parse_base(path.base), path)

    @given(st.lists(store_paths, max_size=6))
    def test_paths_sort_as_their_text(self, paths: list[StorePath]) -> None:
        """The order of paths is the order of their base names, as in fingerprints."""
        self.assertEqual([path.base for path in sorted(paths)], sorted(path.base for path in paths))

    @given(st.text(max_size=60))
    def test_garbage_is_refused(self, text: str) -> None:
        """Every text is parsed or raises Malformed."""
        for candidate in (text, f"{DIGEST}-{text}", f"/nix/store/{DIGEST}-{text}"):
            for parse in (StorePath.parse, StorePath.parse_base):
                with contextlib.suppress(Malformed):
                    self.assertIn(parse(candidate).base, candidate)

    def test_odd_but_legal_names_are_read(self) -> None:
        """Names may have two dots, question marks, leading dots, and 211 characters."""
        for name in ("a..b", "what?=+_-", ".hidden", "...", ".-a"[1:] + "x", "x" * 211):
            self.assertEqual(StorePath.parse_base(f"{DIGEST}-{name}").name, name)

    def test_bad_paths_are_refused(self) -> None:
        """Wrong hash parts, names with directories, line ends and other stores are refused."""
        for base in (
            "",
            DIGEST,
            f"{DIGEST}-",
            f"{DIGEST}_name",
            f"{DIGEST[1:]}-name",
            f"{DIGEST}0-name",
            f"{DIGEST.upper()}-name",
            f"{'e' * 32}-name",
            f"{DIGEST}-.",
            f"{DIGEST}-..",
            f"{DIGEST}-.-a",
            f"{DIGEST}-..-a",
            f"{DIGEST}-a/b",
            f"{DIGEST}-a\n",
            f"{DIGEST}-a b",
            f"{DIGEST}-é",
            f"{DIGEST}-{'x' * 212}",
        ):
            with self.assertRaises(Malformed):
                StorePath.parse_base(base)
            with self.assertRaises(Malformed):
                StorePath.parse(f"/nix/store/{base}")
        for path in (
            f"/gnu/store/{DIGEST}-a",
            f"/nix/store/{DIGEST}-a/bin",
            f"/nix/store/x/../{DIGEST}-a",
            f"/nix/store//{DIGEST}-a",
            f"nix/store/{DIGEST}-a",
            f"{DIGEST}-a",
        ):
            with self.assertRaises(Malformed):
                StorePath.parse(path)

    def test_another_store_is_read_where_it_is_named(self) -> None:
        """A caller may give another store directory."""
        self.assertEqual(StorePath.parse(f"/s/{DIGEST}-a", "/s").name, "a")

    def test_hash_parts_are_recognised(self) -> None:
        """A hash part has exactly 32 characters of nix32, without a line end."""
        self.assertTrue(is_digest(DIGEST))
        for wrong in ("", DIGEST[1:], DIGEST + "0", DIGEST + "\n", DIGEST.upper(), "e" * 32):
            self.assertFalse(is_digest(wrong))
