"""Tests of content checks, on NARs that Nix wrote."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt
from ncps.nix import contentcheck
from ncps.nix.contentaddress import ContentAddress, Method
from ncps.nix.contentcheck import ContentCheck
from ncps.nix.hashes import sha256_of
from ncps.nix.nar import FILE_HEAD
from ncps.nix.narinfo import NarInfo
from ncps.nix.storepath import StorePath
from tests.fixtures import CONTENT_ADDRESSED
from tests.unit.nix.test_contentaddress import PATHS, address_of

PATH = StorePath("0123456789abcdfghijklmnpqrsvwxyz", "x")


def nar_of(narinfo: NarInfo) -> bytes:
    """Return the NAR that Nix wrote."""
    return (CONTENT_ADDRESSED / narinfo.url).read_bytes()


def named(name: str, method: Method, algorithm: str = "sha256") -> NarInfo:
    """Return the narinfo of the path with this name and kind."""
    found = [
        narinfo
        for narinfo in PATHS
        if narinfo.store_path.name == name
        and address_of(narinfo).method == method
        and address_of(narinfo).hash.algorithm == algorithm
    ]
    return found[0]


class ContentCheckTests(SynchronousTestCase):
    def check(self, narinfo: NarInfo, nar: bytes, step: int = 10_000) -> None:
        check = ContentCheck(address_of(narinfo), narinfo.store_path, narinfo.references)
        for at in range(0, len(nar), step):
            check.feed(nar[at : at + step])
        check.finish()

    def refused(self, narinfo: NarInfo, nar: bytes, reason: str) -> None:
        for step in (1, 7, 10_000):
            with self.assertRaisesRegex(Corrupt, reason):
                self.check(narinfo, nar, step)

    def test_contents_of_nix_are_right(self) -> None:
        """Contents of Nix are right, in any pieces, and self-references as in each release."""
        checked = 0
        for narinfo in PATHS:
            if narinfo.store_path.name == "script" and address_of(narinfo).method == "flat":
                continue
            checked += 1
            for step in (1, 7, 31, 32, 33, 100, 10_000):
                self.check(narinfo, nar_of(narinfo), step)
        self.assertEqual(16, checked)

    def test_any_other_byte_is_wrong(self) -> None:
        """A changed byte is wrong, in the contents or around them."""
        for narinfo in PATHS:
            nar = nar_of(narinfo)
            for at in range(0, len(nar), 5):
                wrong = nar[:at] + bytes([nar[at] ^ 1]) + nar[at + 1 :]
                with self.assertRaises(Corrupt, msg=f"{narinfo.ca} at {at}"):
                    self.check(narinfo, wrong)
            for wrong in (b"", nar[:50], nar[:-1], nar + b"\0", nar + nar):
                with self.assertRaises(Corrupt):
                    self.check(narinfo, wrong)

    def test_a_file_is_not_executable(self) -> None:
        """An executable file is refused, because the hash does not cover the bit."""
        narinfo = named("script", "flat")
        self.refused(narinfo, nar_of(narinfo), "not executable")

    def test_a_tree_is_no_file(self) -> None:
        """A directory is refused for an address of a file."""
        narinfo = named("hello.txt", "flat", "md5")
        self.refused(narinfo, nar_of(named("tree", "nar")), "not executable")

    def test_a_file_ends_where_it_ends(self) -> None:
        """The bytes that follow or pad the contents are fixed."""
        narinfo = named("a.txt", "text")
        nar = nar_of(narinfo)
        self.refused(narinfo, nar[:-1], "too early")
        self.refused(narinfo, nar + b"x", "does not end")
        self.refused(narinfo, nar[:40], "too early")
        size = len(FILE_HEAD)
        self.refused(narinfo, nar[:size] + b"\xff" * 8 + nar[size + 8 :], "too early")

    def test_the_hash_is_named(self) -> None:
        """The message names both hashes."""
        narinfo, other = named("a.txt", "text"), named("b.txt", "text")
        self.refused(
            narinfo, nar_of(other), f"{address_of(other).hash}.*{address_of(narinfo).hash}"
        )

    def test_where_a_path_names_itself_counts_as_nix_2_8_has_it(self) -> None:
        """Of two overlapping self-references only the first counts, as in Nix 2.8."""
        itself = PATH.digest.encode()
        nar = b"a" + itself + b"b" * 31 + itself + itself[:20]
        plain = b"a" + bytes(32) + b"b" * 31 + bytes(32) + itself[:20]
        for text in (plain, plain + b"|1|64"):
            address = ContentAddress("nar", sha256_of(text))
            for step in (1, 13, 1000):
                check = ContentCheck(address, PATH, [PATH])
                for at in range(0, len(nar), step):
                    check.feed(nar[at : at + step])
                check.finish()

    def test_a_path_names_itself_a_million_times_at_most(self) -> None:
        """The number of self-references has a limit, because each costs memory."""
        self.patch(contentcheck, "MAX_PLACES", 10)
        check = ContentCheck(ContentAddress("nar", sha256_of(b"")), PATH, [PATH])
        check.feed(PATH.digest.encode() * 10)
        with self.assertRaisesRegex(Corrupt, "more than 10 times"):
            check.feed(PATH.digest.encode())

    def test_without_a_reference_to_itself_the_nar_is_hashed_as_it_is(self) -> None:
        """Without a self-reference, the path's own hash part is ordinary text."""
        nar = b"a" + PATH.digest.encode()
        check = ContentCheck(ContentAddress("nar", sha256_of(nar)), PATH, [])
        check.feed(nar)
        check.finish()
        narinfo = named("selfish", "nar")
        self.refused(
            evolve(narinfo, references=()), nar_of(narinfo), str(sha256_of(nar_of(narinfo)))
        )
