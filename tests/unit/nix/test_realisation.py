"""Realisations that real releases of Nix wrote and signed, and invalid texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.keys import PublicKey, SecretKey, verify_any
from ncps.nix.realisation import MAX_SIZE, Realisation, RealisationKey
from ncps.nix.storepath import StorePath

FIXTURES = Path(__file__).parents[2] / "fixtures" / "realisations"
PUBLIC = PublicKey.parse("up-1:r4D+94XXyg7Dl9/h+6BCCg+1o5kZ6WCLOeQ5gsJf5tA=")
DIGEST = "0123456789abcdfghijklmnpqrsvwxyz"
TRACE = RealisationKey(f"{DIGEST}-hello.drv", "out")
OLD = RealisationKey("sha256:" + "ab" * 32, "dev")
PATH = StorePath(DIGEST, "hello")
SECRET = SecretKey.generate("own-1")


def vectors() -> list[tuple[str, RealisationKey, bytes]]:
    """Return release, key and text of every realisation that Nix wrote."""
    return [
        (file.parent.name, RealisationKey(f"sha256:{file.stem}", "out"), file.read_bytes())
        for file in sorted(FIXTURES.glob("*/*.json"))
    ]


class KeyTests(SynchronousTestCase):
    def test_both_families_have_a_path_each(self) -> None:
        """A path is read as the same key, with its ending and without."""
        for key, path in (
            (TRACE, f"build-trace-v2/{DIGEST}-hello.drv/out"),
            (OLD, f"realisations/sha256:{'ab' * 32}!dev"),
        ):
            self.assertEqual(path, key.path)
            self.assertEqual(key, RealisationKey.parse(path))
            self.assertEqual(key, RealisationKey.parse(f"{path}.doi"))
            self.assertRegex(key.digest, "^[0-9a-z]{52}$")

    def test_other_paths_are_refused(self) -> None:
        """Names with directories, wrong hashes, and missing parts are refused."""
        for path in (
            "",
            "build-trace-v2/",
            f"build-trace-v2/{DIGEST}-hello.drv",
            f"build-trace-v2/{DIGEST}-hello.drv/",
            f"build-trace-v2/{DIGEST}-hello.drv/..",
            f"build-trace-v2/{DIGEST}-hello.drv/a/b",
            "build-trace-v2/hello.drv/out",
            f"build-trace-v2/sha256:{'ab' * 32}/out",
            f"realisations/sha256:{'ab' * 31}!out",
            f"realisations/sha256:{'AB' * 32}!out",
            f"realisations/sha512:{'ab' * 64}!out",
            f"realisations/sha256:{'ab' * 32}!",
            f"realisations/{DIGEST}-hello.drv!out",
            f"realisations/sha256:{'ab' * 32}",
            f"elsewhere/sha256:{'ab' * 32}!out",
        ):
            with self.assertRaises(Malformed, msg=path):
                RealisationKey.parse(path)


class FormatTests(SynchronousTestCase):
    def test_real_realisations_are_read_and_written_alike(self) -> None:
        """Realisations of each release are written back byte for byte."""
        self.assertEqual(5, len(vectors()))
        for release, key, text in vectors():
            self.assertEqual(text, Realisation.parse(text, key).render(), release)

    def test_real_signatures_are_good(self) -> None:
        """Real signatures are valid: of the full text, or of the text without dependencies."""
        for release, key, text in vectors():
            found = Realisation.parse(text, key)
            good = [
                verify_any([PUBLIC], message, found.signatures) is not None
                for message in found.fingerprints
            ]
            self.assertTrue(good[0], release)
            self.assertEqual(bool(found.dependencies), len(good) == 2, release)

    def test_no_other_statement_has_a_good_signature(self) -> None:
        """With another path, output or dependency, no signature is valid."""
        _, key, text = next(each for each in vectors() if b'Realisations":{"' in each[2])
        found = Realisation.parse(text, key)
        dependency = found.dependencies[0][0], PATH.base
        for other in (
            evolve(found, out_path=PATH),
            evolve(found, key=RealisationKey(key.derivation, "dev")),
            evolve(found, dependencies=(dependency,)),
        ):
            for message in other.fingerprints:
                self.assertIsNone(verify_any([PUBLIC], message, other.signatures))

    def test_text_that_the_go_program_signs(self) -> None:
        """The text of a build trace that the Go program served is covered by its signature."""
        public = PublicKey.parse("go.example:xbecHcF6jit5yCk1VIno7clYOEiQPWbM2nIUTGrGXek=")
        drv = "0i92g2bnjw1k2r339gnkn6inx65y1lnb-thing.drv"
        signature = (
            "84kXGZW1ZwKceDn04rdrmFQ+RCoqjX9oILAbPQl6lKEG"
            "l2X8acv+PA1P/CdyyxYKeNRR/DDHTmWOL8YPzXS4AQ=="
        )
        text = (
            f'{{"key":{{"drvPath":"/nix/store/{drv}","outputName":"out"}},"value":{{'
            '"outPath":"/nix/store/jrcfjkpxq3xj835h933r2lymr5h89lbm-liba-1.0",'
            f'"signatures":[{{"keyName":"go.example","sig":"{signature}"}}]}}}}'
        )
        told = Realisation.parse(text.encode(), RealisationKey(drv, "out"))
        signatures = told.signatures
        self.assertIsNone(verify_any([public], told.fingerprints[0], signatures))
        first, second = told.texts_of_go
        self.assertEqual(public, verify_any([public], first, signatures))
        self.assertIsNone(verify_any([public], second, signatures))
        other = evolve(told, out_path=PATH)
        for message in other.texts_of_go:
            self.assertIsNone(verify_any([public], message, signatures))

    def test_fingerprint_of_the_newer_family(self) -> None:
        """The fingerprint has key and path as base names, in order, without spaces."""
        told = Realisation(TRACE, PATH)
        (message,) = told.fingerprints
        self.assertEqual(
            f'{{"key":{{"drvPath":"{DIGEST}-hello.drv","outputName":"out"}},'
            f'"value":{{"outPath":"{DIGEST}-hello"}}}}',
            message.decode(),
        )
        signed = evolve(told, signatures=(SECRET.sign(message),))
        self.assertEqual(signed, Realisation.parse(signed.render(), TRACE))
        (signature,) = json.loads(signed.render())["signatures"]
        self.assertEqual("own-1", signature["keyName"])

    def test_the_newer_family_may_have_its_key_in_the_text(self) -> None:
        """The key in the text may have base names or whole paths; it must be that of the URL."""
        value = {"outPath": f"/nix/store/{PATH.base}", "signatures": []}
        for derivation, output, is_right in (
            (TRACE.derivation, "out", True),
            (f"/nix/store/{TRACE.derivation}", "out", True),
            (TRACE.derivation, "dev", False),
            (f"{DIGEST}-other.drv", "out", False),
        ):
            keyed = {"key": {"drvPath": derivation, "outputName": output}, "value": value}
            text = json.dumps(keyed).encode()
            if is_right:
                self.assertEqual(Realisation(TRACE, PATH), Realisation.parse(text, TRACE))
            else:
                with self.assertRaises(Malformed):
                    Realisation.parse(text, TRACE)

    def test_unknown_fields_and_unreadable_signatures_are_left_out(self) -> None:
        """Nix ignores such fields, and would refuse a text with a bad signature."""
        good = SECRET.sign(b"")
        told = {
            "outPath": PATH.base,
            "later": [1, {"deep": None}],
            "signatures": [str(good), "own-1:AAAA", "", "::", {"keyName": "a", "sig": "!"}],
        }
        found = Realisation.parse(json.dumps(told).encode(), TRACE)
        self.assertEqual(Realisation(TRACE, PATH, (good,)), found)

    def test_wrong_types_are_refused(self) -> None:
        """A value of a wrong type is Malformed."""
        good: dict[str, object] = {"id": OLD.id, "outPath": PATH.base, "signatures": []}
        self.assertEqual(Realisation(OLD, PATH), Realisation.parse(json.dumps(good).encode(), OLD))
        wrong: tuple[dict[str, object], ...] = (
            {"id": None},
            {"id": 7},
            {"id": RealisationKey(OLD.derivation, "out").id},
            {"outPath": None},
            {"outPath": [PATH.base]},
            {"outPath": "/etc/passwd"},
            {"outPath": f"/nix/store/{PATH.base}/bin"},
            {"signatures": {}},
            {"signatures": "a:b"},
            {"signatures": [1]},
            {"signatures": [{"keyName": "a"}]},
            {"dependentRealisations": []},
            {"dependentRealisations": {OLD.id: 1}},
            {"dependentRealisations": {"x": PATH.base}},
            {"dependentRealisations": {OLD.id: "x"}},
        )
        for changes in wrong:
            with self.assertRaises(Malformed, msg=str(changes)):
                Realisation.parse(json.dumps({**good, **changes}).encode(), OLD)

    def test_invalid_json_is_refused(self) -> None:
        """Other encodings, deep and long texts, long numbers, and cut texts are refused."""
        for text in (
            b"",
            b"null",
            b"[]",
            b"\xff\xfe{}",
            b'{"outPath": "\xff"}',
            b"<html>",
            b"[" * 200_000,
            b'{"a":' * 100_000,
            b'{"outPath": NaN}',
            b'{"outPath": ' + b"9" * 100_000 + b"}",
            b'{"outPath": "',
            b" " * (MAX_SIZE + 1),
        ):
            for key in (TRACE, OLD):
                with self.assertRaises(Malformed, msg=repr(text[:40])):
                    Realisation.parse(text, key)

    def test_mutations_never_raise_anything_else(self) -> None:
        """Each of 3000 damaged texts is refused, or is stable after the first reading."""
        dice = random.Random(7)
        samples = [(key, text) for _, key, text in vectors()]
        signed = Realisation(TRACE, PATH, (SECRET.sign(b"x"),))
        samples.append((TRACE, signed.render()))
        read = 0
        for _ in range(3000):
            key, text = dice.choice(samples)
            damaged = bytearray(text)
            for _ in range(dice.randint(1, 3)):
                at = dice.randrange(len(damaged) or 1)
                match dice.randrange(4):
                    case 0:
                        damaged[at : at + 1] = bytes([dice.randrange(256)])
                    case 1:
                        del damaged[at : at + dice.randint(1, 40)]
                    case 2:
                        damaged[at:at] = damaged[at : at + dice.randint(1, 40)]
                    case _:
                        damaged[at : at + 1] = dice.choice(
                            (b'"', b"{", b"[", b"}", b"\\u0000", b"1")
                        )
            try:
                found = Realisation.parse(bytes(damaged), key)
            except Malformed:
                continue
            read += 1
            self.assertEqual(found, Realisation.parse(found.render(), key))
        self.assertGreater(read, 30)
