"""Tests of the layout of a store."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.base32 import ALPHABET
from ncps.nix.narurl import EXTENSIONS, NarKey
from ncps.storage import keys
from tests.contract.samples import digest_of, key_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
nar_keys = st.builds(
    NarKey,
    st.one_of(
        st.text(alphabet=ALPHABET, min_size=52, max_size=52),
        st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    ),
    st.sampled_from(["", *EXTENSIONS.values()]),
)


class KeysTests(SynchronousTestCase):
    def test_the_layout_is_the_one_of_the_go_program(self) -> None:
        """A tree that the Go program wrote is found under the same names."""
        name = "1bn7c3bf5z32cdgylhbp9nzhh6ydib5ngsm6mdhsvf233g0nh1ac"
        self.assertEqual(keys.nar_key(NarKey(name, "xz")), f"store/nar/1/1b/{name}.nar.xz")
        digest = "n5glp21rsz314qssw9fbvfswgy3kc68f"
        self.assertEqual(keys.narinfo_key(digest), f"store/narinfo/n/n5/{digest}.narinfo")
        self.assertEqual(keys.config_key("cache.key"), "config/cache.key")

    @given(nar_keys)
    def test_every_nar_key_reads_back(self, key: NarKey) -> None:
        """The key of a NAR is read as the same NAR."""
        self.assertEqual(keys.nar_of(keys.nar_key(key)), key)

    @given(st.text(alphabet=ALPHABET, min_size=32, max_size=32))
    def test_every_narinfo_key_reads_back(self, digest: str) -> None:
        """The key of a narinfo is read as the same digest."""
        self.assertEqual(keys.digest_of(keys.narinfo_key(digest)), digest)

    def test_other_names_are_not_taken_for_objects(self) -> None:
        """Files with other names or in other places are no objects."""
        name = key_of(1).file_name
        for stranger in (
            f"store/nar/{name}",
            f"store/nar/0/00/{name}",
            f"{keys.nar_key(key_of(1))}.part",
            f"{keys.nar_key(key_of(1, ''))}.none",
            "store/nar/a/ab/README",
            "",
        ):
            self.assertIsNone(keys.nar_of(stranger))
        for stranger in (
            f"store/narinfo/{digest_of(1)}.narinfo",
            f"store/narinfo/0/00/{digest_of(1)}.narinfo",
            keys.narinfo_key(digest_of(1)).removesuffix(".narinfo"),
            keys.narinfo_key(digest_of(1)) + "~",
            "",
        ):
            self.assertIsNone(keys.digest_of(stranger))

    @given(st.text(max_size=70))
    def test_no_name_of_a_secret_leads_elsewhere(self, name: str) -> None:
        """Each name lies directly in the directory of secrets, or is refused."""
        try:
            key = keys.config_key(name)
        except Malformed:
            return
        self.assertEqual(key, f"config/{name}")
        self.assertNotIn("/", name)
        self.assertNotIn("..", name)
        self.assertFalse(name.startswith("."))

    @given(nar_keys, st.integers(0, 10**17 - 1))
    def test_every_quarantine_key_reads_back(self, key: NarKey, moment: int) -> None:
        """A key in the quarantine is read as the same NAR and time."""
        for mark in (f"{moment}", f"{moment}-0123456789abcdef"):
            found = keys.set_aside_of(keys.quarantine_key(key, mark))
            assert found is not None
            self.assertEqual(found[:2], (key, mark))
            self.assertEqual(found[2] - EPOCH, timedelta(microseconds=moment))

    def test_marks_differ_though_the_time_does_not(self) -> None:
        """Marks of the same microsecond differ."""
        marks = {keys.new_mark(1_750_000_000.25) for _ in range(100)}
        self.assertEqual(len(marks), 100)
        for mark in marks:
            self.assertRegex(mark, r"\A1750000000250000-[0-9a-f]{16}\Z")

    def test_other_names_are_not_taken_for_set_aside(self) -> None:
        """A name with another form does not belong to the quarantine."""
        key, mark = key_of(1), "17-0123456789abcdef"
        ours = keys.quarantine_key(key, mark)
        for stranger in (
            "",
            keys.nar_key(key),
            f"store/quarantine/{key.file_name}",
            f"store/quarantine/{key.file_name}.",
            f"store/quarantine/{key.file_name}.017",
            f"store/quarantine/{key.file_name}.-17",
            f"store/quarantine/{key.file_name}.17-0123456789ABCDEF",
            f"store/quarantine/{key.file_name}.17-0123",
            f"store/quarantine/{key.file_name}.{10**17}",
            f"store/quarantine/{key.file_name}.\u0661\u0667",
            f"store/quarantine/{key_of(1, '').file_name}.none.{mark}",
            f"store/quarantine/x/{key.file_name}.{mark}",
            f"{ours}.bak",
            f"{ours}\n",
            f"/{ours}",
            f"store/quarantine/README.{mark}",
        ):
            self.assertIsNone(keys.set_aside_of(stranger), stranger)

    @given(st.text(max_size=40))
    def test_no_mark_leads_elsewhere(self, mark: str) -> None:
        """A text that is no mark is refused."""
        try:
            key = keys.quarantine_key(key_of(1), mark)
        except Malformed:
            return
        self.assertRegex(key, r"\Astore/quarantine/[0-9a-z.]+\.[0-9a-f-]+\Z")

    def test_a_quarantined_file_keeps_its_name(self) -> None:
        """A key in the quarantine contains the name of the NAR."""
        self.assertEqual(
            keys.quarantine_key(key_of(1), "17"), f"store/quarantine/{key_of(1).file_name}.17"
        )
