"""Tests of narinfo."""

import contextlib
from base64 import b64encode

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.hashes import Hash, sha256_of
from ncps.nix.keys import PublicKey, Signature, verify_any
from ncps.nix.narinfo import COMPRESSIONS, MAX_NAR_SIZE, MAX_SIZE, NarInfo
from ncps.nix.storepath import StorePath
from tests.fakes.samples import sri
from tests.fixtures import CLOSURE, NIX
from tests.unit.nix.test_storepath import store_paths

A = "8hb1zapwkfr1j7zmxj7s7wj2pgci7zjm-a.txt"
B = "c9ps1x6x3zxcw9rw0wj5xf05z13a3msi-b.txt"

SAMPLE = (NIX / f"{CLOSURE[1]}.narinfo").read_bytes()
KEY = PublicKey.parse((NIX / "key.pub").read_text())

hashes = st.binary(min_size=32, max_size=32).map(Hash.of_sha256)
sizes = st.integers(1, MAX_NAR_SIZE)
words = st.from_regex(r"[!-~]{1,30}", fullmatch=True)

narinfos = st.builds(
    NarInfo,
    store_path=store_paths,
    url=words,
    compression=st.sampled_from(sorted(COMPRESSIONS - {"none"})),
    file_hash=st.none() | hashes,
    file_size=st.none() | sizes,
    nar_hash=hashes,
    nar_size=sizes,
    references=st.lists(store_paths, max_size=4),
    deriver=st.none() | store_paths.map(lambda path: path.base),
    system=st.none() | words,
    signatures=st.lists(
        st.builds(Signature, st.just("key-1"), st.binary(min_size=64, max_size=64)), max_size=3
    ),
    ca=st.none() | words,
)


def without(key: bytes) -> bytes:
    """Return the sample without the lines of one key."""
    lines = SAMPLE.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(key + b":"))


def replaced(key: bytes, value: bytes) -> bytes:
    """Return the sample with another value of a key, including the blank before it."""
    return without(key) + key + b":" + value + b"\n"


class ParseTests(SynchronousTestCase):
    def assert_malformed(self, text: bytes, *reasons: str) -> None:
        with self.assertRaises(Malformed) as caught:
            NarInfo.parse(text)
        for reason in reasons:
            self.assertIn(reason, str(caught.exception))

    def test_a_narinfo_of_nix_is_read(self) -> None:
        """Every field that Nix wrote is read."""
        info = NarInfo.parse(SAMPLE)
        self.assertEqual(str(info.store_path), f"/nix/store/{CLOSURE[1]}-c.txt")
        self.assertEqual(
            info.url, "nar/001gvksnikxzsalzc94lcfk8k07i9l4rdflk525a0a9mxkc2bvzs.nar.xz"
        )
        self.assertEqual(info.compression, "xz")
        self.assertEqual((info.file_size, info.nar_size), (216, 224))
        self.assertEqual(
            str(info.file_hash), "sha256:001gvksnikxzsalzc94lcfk8k07i9l4rdflk525a0a9mxkc2bvzs"
        )
        self.assertEqual([path.name for path in info.references], ["b.txt", "src"])
        self.assertEqual([signature.name for signature in info.signatures], ["spike-1"])
        self.assertEqual((info.deriver, info.system), (None, None))
        self.assertEqual(
            info.ca, "text:sha256:0fzljb51vz054jhwndqb6h64zwwm2lf012zkh7apw73yy9cn102r"
        )

    def test_narinfos_of_nix_come_out_byte_for_byte(self) -> None:
        """ncps writes the text that Nix wrote."""
        for name in [*CLOSURE, "src.gzip", "src.none"]:
            text = (NIX / f"{name}.narinfo").read_bytes()
            self.assertEqual(NarInfo.parse(text).render(), text)

    def test_text_mangled_on_the_way_still_reads(self) -> None:
        """CRLF, no last newline, blank lines, other order and unknown keys change nothing."""
        info = NarInfo.parse(SAMPLE)
        for text in (
            SAMPLE.replace(b"\n", b"\r\n"),
            SAMPLE.rstrip(b"\n"),
            SAMPLE + b"\n\n \n",
            SAMPLE + b"X-Unknown: a\tb\nEmpty:\n\xff\xfe: \xff\nTwice: 1\nTwice: 2\n",
            b"\n".join(reversed(SAMPLE.splitlines())),
            SAMPLE.replace(b": ", b":   ").replace(b"\n", b"  \n"),
            SAMPLE.replace(b": ", b":"),
        ):
            self.assertEqual(NarInfo.parse(text), info)

    def test_empty_references_read_with_and_without_the_blank(self) -> None:
        """`References:` without a value never swallows the next line."""
        for text in (
            replaced(b"References", b""),
            replaced(b"References", b" "),
            without(b"References"),
        ):
            info = NarInfo.parse(text)
            self.assertEqual(info.references, ())
            self.assertIn(b"\nReferences: \n", info.render())

    def test_a_missing_compression_is_bzip2(self) -> None:
        """As in Nix, a missing or empty Compression is bzip2."""
        for text in (without(b"Compression"), replaced(b"Compression", b"")):
            text = text.replace(b".nar.xz\n", b".nar.bz2\n")
            self.assertEqual(NarInfo.parse(text).compression, "bzip2")

    def test_a_missing_compression_that_does_not_go_with_the_url_is_refused(self) -> None:
        """A missing Compression is Malformed if the URL names another one than bzip2."""
        text = without(b"Compression")
        for ending, is_read in ((b"", True), (b".bz2", True), (b".xz", False), (b".zst", False)):
            said = text.replace(b".nar.xz\n", b".nar%s\n" % ending)
            if is_read:
                self.assertEqual("bzip2", NarInfo.parse(said).compression)
            else:
                with self.assertRaises(Malformed):
                    NarInfo.parse(said)

    def test_unknown_values_become_none(self) -> None:
        """FileSize 0, empty optional fields and unknown-deriver become None."""
        text = SAMPLE
        for key in (b"FileSize", b"FileHash", b"CA"):
            text = b"".join(
                key + b": \n" if line.startswith(key + b":") else line
                for line in text.splitlines(keepends=True)
            )
        info = NarInfo.parse(text + b"Deriver: unknown-deriver\nSystem: \n")
        self.assertEqual(
            (info.file_size, info.file_hash, info.ca, info.deriver, info.system), (None,) * 5
        )
        self.assertNotIn(b"File", info.render())
        self.assertIsNone(NarInfo.parse(replaced(b"FileSize", b" 0")).file_size)
        self.assertIsNone(NarInfo.parse(SAMPLE + b"Deriver:\n").deriver)

    def test_deriver_and_system_are_kept(self) -> None:
        """Both fields are read, and written after the references."""
        text = without(b"CA") + b"Deriver: " + A.encode() + b"\nSystem: x86_64-linux\n"
        info = NarInfo.parse(text)
        self.assertEqual((info.deriver, info.system), (A, "x86_64-linux"))
        keys = [line.partition(b":")[0] for line in info.render().splitlines()]
        self.assertEqual(keys[-4:], [b"References", b"Deriver", b"System", b"Sig"])

    def test_hashes_in_other_spellings_are_rewritten_in_nix32(self) -> None:
        """Hexadecimal, SRI and a digest without prefix are read, and written in nix32."""
        digest = NarInfo.parse(SAMPLE).nar_hash
        for spelling in (f"sha256:{digest.hex}", sri(digest), digest.nix32, digest.hex):
            for key in (b"NarHash", b"FileHash"):
                info = NarInfo.parse(replaced(key, b" " + spelling.encode()))
                self.assertEqual(info.nar_hash if key == b"NarHash" else info.file_hash, digest)
                self.assertIn(key + b": " + str(digest).encode(), info.render())

    def test_signatures_are_collected_and_bad_ones_dropped(self) -> None:
        """Sig lines are kept in order, each once; invalid ones are dropped."""
        other = b"Sig: other:" + b64encode(bytes(64)) + b"\n"
        info = NarInfo.parse(SAMPLE + b"Sig: nonsense\n" + other + other + b"Sig: bad:!\nSig:\n")
        self.assertEqual([s.name for s in info.signatures], ["spike-1", "other"])

    def test_invalid_signatures_are_dropped(self) -> None:
        """A text that is no signature is dropped, because Nix would refuse the path."""
        for size in (0, 3, 63, 65):
            bad = b"Sig: spike-1:" + b64encode(bytes(size)) + b"\n"
            for text in (bad + SAMPLE, SAMPLE + bad):
                self.assertEqual(NarInfo.parse(SAMPLE), NarInfo.parse(text))

    def test_an_invalid_unsigned_field_is_omitted(self) -> None:
        """An invalid Deriver, System or CA, which are not signed, is omitted."""
        bare = NarInfo.parse(without(b"CA"))
        for line in (
            "Deriver: nonsense",
            f"Deriver: /nix/store/{A}",
            f"Deriver: {A} x",
            "Deriver: " + "0" * 32 + "-" + "x" * 212,
            "System: a\x1bb",
            "CA: a\x7fb",
            "CA: \xfc",
        ):
            text = without(b"CA") + line.encode("latin-1") + b"\n"
            self.assertEqual(bare, NarInfo.parse(text), line)

    def test_a_missing_field_is_named(self) -> None:
        """A missing path, URL, NarHash or NarSize is an error."""
        for key in (b"StorePath", b"URL", b"NarHash", b"NarSize"):
            self.assert_malformed(without(key), key.decode(), "missing")
            self.assert_malformed(replaced(key, b" "), key.decode(), "missing")

    def test_a_field_given_twice_is_named(self) -> None:
        """A field that is given twice is an error, not a guess."""
        for line in SAMPLE.splitlines():
            key = line.partition(b":")[0]
            if key != b"Sig":
                self.assert_malformed(SAMPLE + line + b"\n", key.decode(), "twice")

    def test_a_bad_value_is_named(self) -> None:
        """Each message begins with the field that is wrong."""
        for key, value in (
            ("StorePath", " /gnu/store/" + A),
            ("StorePath", " " + A),
            ("StorePath", f" /nix/store/{A}/bin"),
            ("URL", " nar/a b"),
            ("URL", " nar/a\tb"),
            ("URL", " nar/a\x0bb"),
            ("URL", " nar/\u00fc"),
            ("URL", " nar/a\x85b"),
            ("URL", " nar/a\0b"),
            ("URL", " nar/a\rSig: x"),
            ("Compression", " gz"),
            ("Compression", " XZ"),
            ("FileHash", " sha256:abc"),
            ("FileHash", " md5:" + "0" * 32),
            ("FileSize", " -1"),
            ("FileSize", " 1e3"),
            ("FileSize", " \u0661"),
            ("FileSize", " 9223372036854775808"),
            ("NarHash", " sha256:abc"),
            ("NarHash", " sha1:" + "0" * 40),
            ("NarSize", " 0"),
            ("NarSize", " +5"),
            ("NarSize", " 9223372036854775808"),
            ("NarSize", " " + "9" * 5000),
            ("References", " " + A[1:]),
            ("References", f" {A}\t{B}"),
            ("References", f" {A} /nix/store/{B}"),
        ):
            self.assert_malformed(replaced(key.encode(), value.encode("latin-1", "replace")), key)

    def test_the_largest_nar_is_read(self) -> None:
        """Sizes have the range of a signed 64-bit column."""
        info = NarInfo.parse(replaced(b"NarSize", b" 9223372036854775807"))
        self.assertEqual(info.nar_size, 2**63 - 1)

    def test_html_is_recognised(self) -> None:
        """The error names an HTML page; other text fails at its first line."""
        self.assert_malformed(b"\n <!DOCTYPE html>\n<a href='x:y'>\n", "HTML")
        self.assert_malformed(b"502 Bad Gateway\n", "without colon")
        self.assert_malformed(b"", "StorePath")

    def test_texts_beyond_bounds_are_refused(self) -> None:
        """Too many bytes and too many references are refused."""
        self.assert_malformed(SAMPLE + b"X: " + b"x" * MAX_SIZE, str(MAX_SIZE))
        many = b" " + b" ".join([b"x"] * 100_001)
        self.assert_malformed(replaced(b"References", many), "References", "100000")

    def test_an_uncompressed_nar_is_its_file(self) -> None:
        """With Compression none, the facts of the file are those of the NAR."""
        text = (NIX / "src.none.narinfo").read_bytes()
        info = NarInfo.parse(text)
        lines = text.splitlines(keepends=True)
        bare = b"".join(line for line in lines if not line.startswith(b"File"))
        self.assertEqual(NarInfo.parse(bare), info)
        self.assertEqual(NarInfo.parse(bare + b"FileSize: 0\n"), info)
        self.assert_malformed(bare + b"FileSize: 1\n", "FileSize", "NarSize")
        other = str(sha256_of(b"")).encode()
        self.assert_malformed(bare + b"FileHash: " + other + b"\n", "FileHash", "NarHash")

    @given(st.binary(max_size=300))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """Any bytes are parsed or raise Malformed."""
        for text in (data, SAMPLE + data, data + SAMPLE):
            with contextlib.suppress(Malformed):
                NarInfo.parse(text)


class RenderTests(SynchronousTestCase):
    @given(narinfos)
    def test_any_narinfo_survives_the_round_trip(self, info: NarInfo) -> None:
        """A written narinfo is read as the same, and each line suits strict clients."""
        text = info.render()
        self.assertEqual(NarInfo.parse(text), info)
        self.assertTrue(text.endswith(b"\n"))
        for line in text[:-1].split(b"\n"):
            self.assertRegex(line, rb"\A[A-Za-z]+: ")

    def test_a_narinfo_that_would_break_its_text_cannot_be_made(self) -> None:
        """A changed field is checked as in reading."""
        info = NarInfo.parse(SAMPLE)
        for change in (
            {"url": "a\nSig: x:YWJj"},
            {"url": ""},
            {"system": "a\nb"},
            {"ca": ""},
            {"compression": "gz"},
            {"nar_size": 0},
            {"file_size": 0},
            {"nar_hash": Hash("sha1", bytes(20))},
            {"file_hash": Hash("md5", bytes(16))},
            {"references": [StorePath(f"{i:032d}", "x") for i in range(100_001)]},
        ):
            with self.assertRaises(Malformed):
                evolve(info, **change)

    def test_rewriting_the_url_keeps_everything_else(self) -> None:
        """After a change of the URL the signature is still valid."""
        info = evolve(NarInfo.parse(SAMPLE), url="nar/x.nar")
        self.assertIsNotNone(verify_any([KEY], info.fingerprint(), info.signatures))


class FingerprintTests(SynchronousTestCase):
    def test_signatures_of_nix_verify(self) -> None:
        """The fingerprint is the text that Nix signed, for every path of a real cache."""
        for name in [*CLOSURE, "src.gzip", "src.none"]:
            info = NarInfo.parse((NIX / f"{name}.narinfo").read_bytes())
            self.assertEqual(verify_any([KEY], info.fingerprint(), info.signatures), KEY)
            other = evolve(info, nar_size=info.nar_size + 1, compression="xz")
            self.assertIsNone(verify_any([KEY], other.fingerprint(), info.signatures))

    def test_references_are_sorted_and_counted_once(self) -> None:
        """The order in the text, and a reference given twice, do not change what is signed."""
        info = NarInfo.parse(SAMPLE)
        first, second = info.references
        shuffled = evolve(info, references=[second, first, second])
        self.assertEqual(shuffled.references, (second, first))
        self.assertEqual(shuffled.fingerprint(), info.fingerprint())
        self.assertEqual(
            info.fingerprint().decode(),
            f"1;/nix/store/{CLOSURE[1]}-c.txt;"
            "sha256:08h03s1zfdlhgxp1g4i2xvaa8r9gcidr80l0m3pl20lzj0r6dw5v;224;"
            f"/nix/store/{B},/nix/store/{CLOSURE[3]}-src",
        )
