"""Tests of content addresses, on store paths that Nix computed."""

from __future__ import annotations

import contextlib

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.hashes import SIZES, Hash
from ncps.nix.narinfo import NarInfo
from ncps.nix.storepath import StorePath
from tests.fakes.samples import sri
from tests.fixtures import CONTENT_ADDRESSED
from tests.unit.nix.test_storepath import store_paths

PATHS = [NarInfo.parse(file.read_bytes()) for file in sorted(CONTENT_ADDRESSED.glob("*.narinfo"))]

hashes = st.sampled_from(sorted(SIZES)).flatmap(
    lambda name: st.builds(
        Hash, st.just(name), st.binary(min_size=SIZES[name], max_size=SIZES[name])
    )
)


def address_of(narinfo: NarInfo) -> ContentAddress:
    """Return the content address that Nix wrote."""
    assert narinfo.ca is not None
    return ContentAddress.parse(narinfo.ca)


class ParseTests(SynchronousTestCase):
    def test_texts_of_nix_are_written_unchanged(self) -> None:
        """Every kind of Nix is read and written unchanged."""
        for narinfo in PATHS:
            self.assertEqual(narinfo.ca, str(address_of(narinfo)))
        kinds = {(address_of(n).method, address_of(n).hash.algorithm) for n in PATHS}
        made = {(method, algorithm) for method in ("flat", "nar") for algorithm in SIZES}
        self.assertEqual(made | {("text", "sha256")}, kinds)

    def test_hashes_in_other_spellings_mean_the_same(self) -> None:
        """Hexadecimal and base64 after the algorithm are read as well."""
        digest = Hash.of_sha256(bytes(range(32)))
        base64 = sri(digest).partition("-")[2]
        for spelling in (digest.nix32, digest.hex, base64):
            address = ContentAddress.parse(f"fixed:r:sha256:{spelling}")
            self.assertEqual(f"fixed:r:{digest}", str(address))

    def test_texts_that_nix_refuses_are_refused(self) -> None:
        """Nix 2.8 and 2.26 refuse each of these, or crash."""
        nix32 = "0" * 52
        for text in (
            "",
            "nonsense",
            "text:",
            "fixed:",
            "fixed:r:",
            f"text:{nix32}",
            f"fixed:{nix32}",
            f"fixed:r:{nix32}",
            f"source:sha256:{nix32}",
            f"fixed:r:blake9:{nix32}",
            "fixed:git:sha1:" + "0" * 32,
            "text:md5:" + "0" * 26,
            "text:sha512:" + "0" * 103,
            "fixed:r:sha256:abc",
            f"fixed:r:sha256:{nix32}0",
            f"fixed:r:sha256:sha256:{nix32}",
            f"fixed:r:sha1:sha256:{nix32}",
            "fixed:r:" + sri(Hash.of_sha256(bytes(32))),
            f"fixed:sha256-{nix32}",
            f" text:sha256:{nix32}",
        ):
            with self.assertRaises(Malformed, msg=text):
                ContentAddress.parse(text)

    @given(st.text(max_size=80))
    def test_garbage_is_refused(self, text: str) -> None:
        """Every text is parsed or raises Malformed."""
        for prefix in ("", "text:sha256:", "fixed:", "fixed:r:md5:"):
            with contextlib.suppress(Malformed):
                ContentAddress.parse(prefix + text)

    @given(st.sampled_from(["flat", "nar"]), hashes)
    def test_any_address_survives_the_round_trip(self, method: str, digest: Hash) -> None:
        """A written address is read as the same address."""
        address = ContentAddress("flat" if method == "flat" else "nar", digest)
        self.assertEqual(address, ContentAddress.parse(str(address)))


class StorePathTests(SynchronousTestCase):
    def test_paths_of_nix_follow_from_their_addresses(self) -> None:
        """The computed path is that of Nix, with references and without."""
        self.assertEqual(17, len(PATHS))
        for narinfo in PATHS:
            self.assertTrue(
                address_of(narinfo).proves(narinfo.store_path, narinfo.references), narinfo.ca
            )

    def test_another_path_is_refused(self) -> None:
        """Another name, hash part, reference or content gives another path."""
        stranger = StorePath("0" * 32, "stranger")
        for narinfo in PATHS:
            address, path = address_of(narinfo), narinfo.store_path
            references = narinfo.references
            self.assertFalse(address.proves(evolve(path, name=path.name + "x"), references))
            self.assertFalse(address.proves(evolve(path, digest="0" * 32), references))
            self.assertFalse(address.proves(path, (*references, stranger)))
            self.assertFalse(address.proves(path, references[1:] if references else (path,)))
            other = evolve(address.hash, digest=bytes(len(address.hash.digest)))
            self.assertFalse(evolve(address, hash=other).proves(path, references))

    def test_one_kind_does_not_stand_for_another(self) -> None:
        """The same hash of a text, of a file and of a tree gives three paths."""
        digest = Hash.of_sha256(bytes(32))
        paths = {
            ContentAddress(method, digest).store_path("x") for method in ("text", "flat", "nar")
        }
        self.assertEqual(3, len(paths))

    @given(hashes, st.lists(store_paths, max_size=4))
    def test_the_order_of_references_does_not_matter(
        self, digest: Hash, references: list[StorePath]
    ) -> None:
        """Only `text:` and `fixed:r:sha256:` have references, and only the latter to itself."""
        address = ContentAddress("nar", digest)
        if digest.algorithm == "sha256":
            path = address.store_path("x", references, refers_to_itself=True)
            self.assertTrue(address.proves(path, [path, *reversed(references)]))
            self.assertFalse(address.proves(path, references))
        else:
            self.assertRaises(Malformed, address.store_path, "x", refers_to_itself=True)
            if references:
                self.assertRaises(Malformed, address.store_path, "x", references)
