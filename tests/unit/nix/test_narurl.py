"""Tests of NAR names, and of their derivation from upstream URLs."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.narurl import (
    EXTENSIONS,
    VARIANTS,
    NarKey,
    UnknownExtension,
    conventional_key,
    is_opaque,
    opaque_key,
)

NIX32 = "001gvksnikxzsalzc94lcfk8k07i9l4rdflk525a0a9mxkc2bvzs"
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
DIGEST = "8wims9f42avjwi9w1grd6m2c4nsx8xc5"
NAR_HASH = sha256_of(b"nar")

nar_keys = st.builds(
    NarKey,
    st.text(alphabet=ALPHABET, min_size=52, max_size=52)
    | st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["", *EXTENSIONS.values()]),
)


class NarKeyTests(SynchronousTestCase):
    @given(nar_keys)
    def test_any_key_survives_the_round_trip(self, key: NarKey) -> None:
        """A URL in a narinfo is read as the same key, and is safe as a file name."""
        self.assertEqual(NarKey.parse(key.file_name), key)
        self.assertEqual(key.url, f"nar/{key.file_name}")
        self.assertNotIn("/", key.file_name)

    def test_names_and_extensions_are_separated(self) -> None:
        """All extensions of Nix are known, and `none` is no extension."""
        for extension in ("xz", "zst", "bz2", "br", "lz4", "lzip"):
            key = NarKey.parse(f"{NIX32}.nar.{extension}")
            self.assertEqual((key.name, key.extension), (NIX32, extension))
        self.assertEqual(NarKey.parse(f"{HEX}.nar"), NarKey(HEX, ""))
        self.assertEqual(NarKey.parse(f"{HEX}.nar.none"), NarKey(HEX, ""))

    def test_an_unknown_extension_has_an_error_of_its_own(self) -> None:
        """An unknown extension has its own error, for the status 400."""
        for extension in ("gz", "xz.zst", "", "XZ", "../x"):
            with self.assertRaises(UnknownExtension):
                NarKey.parse(f"{NIX32}.nar.{extension}")

    def test_bad_names_are_refused(self) -> None:
        """Wrong lengths and characters, prefixes, paths and line ends are refused."""
        for name in (
            "",
            ".nar",
            NIX32,
            f"{NIX32}.na",
            f"{NIX32}.narx",
            f"{NIX32}.narinfo",
            f"{NIX32[1:]}.nar",
            f"{NIX32}0.nar",
            f"{NIX32.upper()}.nar",
            f"{HEX.upper()}.nar",
            f"{HEX[1:]}.nar.gz",
            f"{'e' * 52}.nar",
            f"{DIGEST}-{NIX32}.nar",
            f"../{NIX32}.nar",
            f"{NIX32}\n.nar",
        ):
            with self.assertRaises(Malformed) as caught:
                NarKey.parse(name)
            self.assertNotIsInstance(caught.exception, UnknownExtension)

    @given(st.text(max_size=80))
    def test_garbage_is_refused(self, text: str) -> None:
        """Every text is parsed or raises Malformed."""
        for candidate in (text, f"{NIX32}{text}", f"{NIX32}.nar{text}"):
            with contextlib.suppress(Malformed):
                NarKey.parse(candidate)

    def test_the_name_spells_a_hash(self) -> None:
        """Both notations are read as a digest; another name is Malformed."""
        self.assertEqual(NarKey(HEX, "").as_hash(), sha256_of(b""))
        self.assertEqual(NarKey(NIX32, "xz").as_hash(), Hash.parse(f"sha256:{NIX32}"))
        with self.assertRaises(Malformed):
            NarKey("z" * 52, "").as_hash()


class ConventionalKeyTests(SynchronousTestCase):
    def assert_named(self, url: str, file_name: str) -> None:
        self.assertEqual(conventional_key(url), NarKey.parse(file_name), url)

    def test_conventional_urls_give_a_name(self) -> None:
        """The name is found in any directory, on any host, with any query."""
        for url in (
            f"nar/{NIX32}.nar.xz",
            f"{NIX32}.nar.xz",
            f"/deep/er/{NIX32}.nar.xz",
            f"nar/{NIX32}.nar.xz?hash={DIGEST}",
            f"https://cdn.example/a/b/{NIX32}.nar.xz?sig=/x/y.nar#part",
        ):
            self.assert_named(url, f"{NIX32}.nar.xz")
        self.assert_named(f"nar/{HEX}.nar", f"{HEX}.nar")

    def test_prefixes_of_nix_serve_are_stripped(self) -> None:
        """The hash part before the name is removed, after a dash or underscore."""
        for separator in "-_":
            self.assert_named(f"nar/{DIGEST}{separator}{NIX32}.nar", f"{NIX32}.nar")
            self.assert_named(f"nar/{DIGEST}{separator}{HEX}.nar.xz", f"{HEX}.nar.xz")

    def test_opaque_urls_give_no_name(self) -> None:
        """UUIDs of Cachix, paths of snix and unknown extensions give no name."""
        for url in (
            "nar/7cb6a8d2-5c8c-4a3d-8c5f-0123456789ab.nar.zst",
            "7cb6a8d2-5c8c-4a3d-8c5f-0123456789ab.nar.zst",
            "nar/snix-castore/CiAzYX?narsize=1234",
            "https://snix.example/castore/CiAzYX",
            f"nar/{NIX32}.nar.gz",
            f"nar/{DIGEST}-xyz.nar",
            "/..",
        ):
            self.assertIsNone(conventional_key(url), url)

    def test_other_urls_are_refused(self) -> None:
        """A single word, a directory, and a host are no URLs of NARs."""
        for url in ("", "token", "?x=.nar", "nar/", "nar/?a/b", "https://host", "https://h.nar"):
            with self.assertRaises(Malformed):
                conventional_key(url)

    @given(st.text(max_size=40))
    def test_the_name_is_safe_for_every_url(self, url: str) -> None:
        """Any URL gives a valid key, None, or Malformed."""
        for candidate in (url, f"nar/{url}", f"https://h/{url}.nar"):
            with contextlib.suppress(Malformed):
                key = conventional_key(candidate)
                self.assertTrue(key is None or NarKey.parse(key.file_name) == key)


class OpaqueKeyTests(SynchronousTestCase):
    def test_the_nar_hash_and_the_compression_give_the_name(self) -> None:
        """The name is as in the Go program if the extension shows the compression."""
        self.assertEqual(opaque_key("none", NAR_HASH).file_name, f"{NAR_HASH.nix32}.nar")
        self.assertEqual(opaque_key("zstd", NAR_HASH).file_name, f"{NAR_HASH.nix32}.nar.zst")
        gzip = opaque_key("gzip", NAR_HASH)
        self.assertEqual(gzip.name, sha256_of(f"gzip:{NAR_HASH.nix32}".encode()).nix32)
        self.assertEqual(gzip.extension, "")

    def test_no_two_files_share_a_name(self) -> None:
        """Other compressions, variants and NARs have other names, each known as such."""
        nars = (NAR_HASH, sha256_of(b"another"))
        kinds = [
            (compression, nar, variant)
            for compression in ("none", "gzip", "lzma", "xz", "zstd")
            for nar in nars
            for variant in range(VARIANTS)
        ]
        names = {opaque_key(*kind): kind for kind in kinds}
        self.assertEqual(len(names), len(kinds))
        for key, (compression, nar, _) in names.items():
            self.assertEqual(NarKey.parse(key.file_name), key)
            self.assertTrue(is_opaque(key, compression, nar))
            self.assertFalse(any(is_opaque(key, compression, n) for n in nars if n != nar))
            self.assertFalse(is_opaque(key, "bzip2", nar))
