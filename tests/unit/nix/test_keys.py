"""Tests of keys and signatures."""

import contextlib
from base64 import b64decode, b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any

PUBLIC = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
SECRET = "cache-1:" + b64encode(bytes(range(32)) + b64decode(PUBLIC)).decode()

names = st.from_regex(r"[A-Za-z0-9.-]{1,20}", fullmatch=True)


class SignatureTests(SynchronousTestCase):
    @given(names, st.binary(min_size=64, max_size=64))
    def test_any_signature_survives_the_round_trip(self, name: str, raw: bytes) -> None:
        """A written signature is read as the same signature, for all bytes."""
        self.assertEqual(Signature.parse(str(Signature(name, raw))), Signature(name, raw))

    @given(st.text(max_size=60))
    def test_garbage_is_refused(self, text: str) -> None:
        """Every text is parsed or raises Malformed."""
        for parse in (Signature.parse, PublicKey.parse, SecretKey.parse):
            with contextlib.suppress(Malformed):
                parse(text)

    def test_bad_signatures_are_refused(self) -> None:
        """A missing colon or name, invalid names, and invalid base64 are refused."""
        good = b64encode(bytes(64)).decode()
        Signature.parse(f"a:{good}")
        for text in (
            "",
            "abcd",
            good,
            f":{good}",
            f"a b:{good}",
            f"a\n:{good}",
            f"a:b:{good}",
            f"a:{good[:-1]}",
            f"a:{good[:40]}\n{good[40:]}",
            f"a:{good} x",
            f"a:{good.replace('A', '!')}",
        ):
            with self.assertRaises(Malformed):
                Signature.parse(text)

    def test_a_signature_of_another_size_is_refused(self) -> None:
        """Nix refuses a whole path for such a signature, so it is refused here."""
        for size in (0, 3, 32, 63, 65, 128):
            with self.assertRaisesRegex(Malformed, f"64 bytes, not {size}"):
                Signature.parse(f"a:{b64encode(bytes(size)).decode()}")


class PublicKeyTests(SynchronousTestCase):
    def test_a_key_is_read_and_written_as_nix_does(self) -> None:
        """Blanks around the key, as at the end of a key file, do not matter."""
        key = PublicKey.parse(f" cache-1:{PUBLIC}\n")
        self.assertEqual(str(key), f"cache-1:{PUBLIC}")

    def test_a_key_of_the_wrong_length_is_refused(self) -> None:
        """A secret key instead of a public key is refused."""
        with self.assertRaises(Malformed):
            PublicKey.parse(SECRET)

    def test_only_the_right_key_name_and_message_verify(self) -> None:
        """A signature counts for its message, its key and its name."""
        secret = SecretKey.parse(SECRET)
        good = secret.sign(b"message")
        key = secret.public
        self.assertTrue(key.verify(b"message", good))
        self.assertFalse(key.verify(b"massage", good))
        self.assertFalse(key.verify(b"message", Signature("other", good.raw)))
        self.assertFalse(key.verify(b"message", Signature(good.name, bytes(64))))
        self.assertFalse(PublicKey("other", key.raw).verify(b"message", good))
        self.assertFalse(SecretKey.generate("cache-1").public.verify(b"message", good))


class SecretKeyTests(SynchronousTestCase):
    def test_a_key_of_nix_is_read_and_written_back(self) -> None:
        """A key file of Nix is written back unchanged, and its public half is that of Nix."""
        key = SecretKey.parse(SECRET + "\n")
        self.assertEqual(key.export(), SECRET)
        self.assertEqual(str(key.public), f"cache-1:{PUBLIC}")

    def test_a_new_key_signs_what_its_public_half_verifies(self) -> None:
        """A generated key that was written to a file and read again still signs."""
        key = SecretKey.parse(SecretKey.generate("new").export())
        self.assertTrue(key.public.verify(b"m", key.sign(b"m")))
        self.assertNotEqual(SecretKey.generate("new"), key)

    def test_halves_that_do_not_belong_together_are_refused(self) -> None:
        """A key file that was put together from two keys is refused."""
        broken = "cache-1:" + b64encode(bytes(32) + b64decode(PUBLIC)).decode()
        with self.assertRaises(Malformed):
            SecretKey.parse(broken)

    def test_neither_repr_nor_errors_show_the_secret(self) -> None:
        """No printed text and no error contains a part of the key file."""
        name, _, material = SECRET.partition(":")
        key = SecretKey.parse(SECRET)
        self.assertNotIn(material[:12], f"{key!r} {key!s} {key}")
        self.assertIn(name, repr(key))
        for text in (
            material,
            f"{material}:{name}",
            f"{name}:{material[:-4]}",
            f"{name}:{material}!",
            f"{name}:{PUBLIC}",
            f"{name}:{material[::-1]}",
            f" :{material}",
        ):
            with self.assertRaises(Malformed) as caught:
                SecretKey.parse(text)
            message = f"{caught.exception} {caught.exception.__context__!r}"
            for start in range(len(material) - 6):
                self.assertNotIn(material[start : start + 6], message)
            self.assertNotIn(PUBLIC[:6], message)


class VerifyAnyTests(SynchronousTestCase):
    def test_one_good_signature_suffices(self) -> None:
        """Unknown names and bad signatures beside it do no harm."""
        secret = SecretKey.parse(SECRET)
        bad, good = Signature("cache-1", bytes(64)), secret.sign(b"m")
        keys = [SecretKey.generate("else").public, secret.public]
        self.assertEqual(
            verify_any(keys, b"m", [bad, Signature("x", good.raw), good]), secret.public
        )
        self.assertIsNone(verify_any(keys, b"m", [bad]))
        self.assertIsNone(verify_any(keys, b"m", []))
        self.assertIsNone(verify_any([], b"m", [good]))

    def test_two_keys_of_one_name_are_both_tried(self) -> None:
        """After a key was replaced under its name, old signatures still count."""
        old, new = SecretKey.generate("name"), SecretKey.generate("name")
        both = [new.public, old.public]
        self.assertEqual(verify_any(both, b"m", iter([old.sign(b"m")])), old.public)
        self.assertEqual(verify_any(both, b"m", iter([new.sign(b"m")])), new.public)
