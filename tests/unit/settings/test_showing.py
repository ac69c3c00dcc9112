"""The parts of refused values that messages show."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.showing import existing, quote, quote_key

SECRET = st.text("ghijkmnopqrstuvwxyz0123456789", min_size=8, max_size=40)


class QuoteTests(SynchronousTestCase):
    def test_possible_secrets_are_left_out(self) -> None:
        """Users and passwords, parameters, fragments, and long words with digits."""
        for text, shown in (
            ("https://me:p@ss@host/path", "https://***@host/path"),
            ("https://host/path?a=b&c", "https://host/path?***"),
            ("https://host#token", "https://host#***"),
            ("https://me:p?s#s@host", "https://***@host"),
            ("me:my pass@host:1", "***@host:1"),
            ("token@host", "***@host"),
            ("a token@host", "a ***@host"),
            ("host?token=abc", "host?***"),
            ("wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY", "***"),
            ("odd:://me:pw@host", "***@host"),
        ):
            self.assertEqual(quote(text), repr(shown))

    def test_anything_else_is_shown(self) -> None:
        """Other text is shown as far as it fits in one line."""
        for text in (
            "@every 5",
            "TZ=UTC @every 5",
            "0 2 ? * *",
            "5d",
            "cache.example.org/nix",
            "a-very-long-word-without-any-digit",
            "@",
            "",
        ):
            self.assertEqual(quote(text), repr(text))
        self.assertEqual(quote("a b " * 100), repr("a b " * 15 + "..."))
        self.assertEqual(quote("a\nb"), r"'a\nb'")

    @given(SECRET, st.sampled_from(["https://u:{}@h/p", "https://h?k={}", "u:{}@h", "h/?k={}"]))
    def test_no_secret_of_a_url_is_shown(self, secret: str, form: str) -> None:
        """URLs have secrets in several places."""
        self.assertNotIn(secret, quote(form.format(secret)))

    @given(st.text())
    def test_any_text_is_one_line(self, text: str) -> None:
        """Any refused text becomes one line."""
        self.assertTrue(quote(text).isprintable() or not quote(text).isascii())
        self.assertLess(len(quote(text)), 700)

    def test_of_a_key_the_name_is_shown(self) -> None:
        """Text without a name may be the secret itself."""
        self.assertEqual(quote_key("a-1:c2VjcmV0"), "'a-1:***'")
        for text in ("c2VjcmV0", ":c2VjcmV0", "a b:c", ""):
            self.assertEqual(quote_key(text), "")


class ExistingTests(SynchronousTestCase):
    def test_of_a_path_what_is_there(self) -> None:
        """The missing part may be a secret instead of a name."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        self.assertEqual(existing(directory), str(directory))
        for rest in ("secret", "secret/x", "s" * 3000):
            self.assertEqual(existing(directory / rest), f"a file under {directory}")
