from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed, Unavailable
from ncps.upstream import netrc


class ParseTests(SynchronousTestCase):
    def test_entries_are_found_by_host(self) -> None:
        """Each upstream gets its own user and password."""
        entries = netrc.parse(
            "machine a.example login me password s3cret\n"
            "machine B.example\n  password only\n"
            "machine c.example account x user u\n"
            "machine a.example login other password other\n"
            "machine d.example\n"
        )
        self.assertEqual(entries.credentials("A.example"), ("me", "s3cret"))
        self.assertEqual(entries.credentials("b.example"), ("", "only"))
        self.assertEqual(entries.credentials("c.example"), ("u", ""))
        self.assertIsNone(entries.credentials("d.example"))
        self.assertIsNone(entries.credentials("e.example"))

    def test_default_counts_for_all_others(self) -> None:
        """The default entry is used for hosts without an entry of their own."""
        entries = netrc.parse("machine a login x password y default login d password e")
        self.assertEqual(entries.credentials("a"), ("x", "y"))
        self.assertEqual(entries.credentials("b"), ("d", "e"))

    def test_comments_and_macros_are_skipped(self) -> None:
        """Comments and ftp macros do no harm, nor does a password that looks like a comment."""
        entries = netrc.parse(
            "# machine no login no\nmachine a # here\nlogin me password #1\n"
            "macdef init\nmachine no\n  cd x\n \nmachine b password p\nmacdef last\nquit"
        )
        self.assertEqual(entries.credentials("a"), ("me", "#1"))
        self.assertEqual(entries.credentials("b"), ("", "p"))
        self.assertIsNone(entries.credentials("no"))

    def test_quotes_hold_spaces_and_escapes(self) -> None:
        """Passwords may have spaces and quotes."""
        entries = netrc.parse('machine a login "m e" password "x \\"y\\" \\\\ \\n"')
        self.assertEqual(entries.credentials("a"), ("m e", 'x "y" \\ \n'))

    def test_mistakes_name_the_line_and_nothing_else(self) -> None:
        """A broken file never puts a password into the log."""
        for text, line in (
            ("machine a\nlogin", 2),
            ("\nmachine", 2),
            ("machine a password b hunter2", 1),
            ("login hunter2", 1),
            ('machine a\n\npassword "hunter2', 3),
            ('"machine" hunter2', 1),
            ("machine a\nmacdef", 2),
            ('machine a password "x\ny"\nhunter2', 3),
        ):
            with self.assertRaisesRegex(Malformed, f"^line {line}: ") as caught:
                netrc.parse(text)
            self.assertNotIn("hunter2", str(caught.exception))

    def test_the_repr_hides_passwords(self) -> None:
        """Tracebacks do not show passwords."""
        entries = netrc.parse("machine a password hunter2 default password hunter2")
        self.assertNotIn("hunter2", repr(entries))

    @given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text(max_size=9)))
    def test_any_password_survives_quoting(self, passwords: dict[str, str]) -> None:
        """Each quoted value is read back."""
        text = ""
        for host, password in passwords.items():
            quoted = password.replace("\\", "\\\\").replace('"', '\\"')
            text += f'machine {host} password "{quoted}"\n'
        entries = netrc.parse(text)
        for host, password in passwords.items():
            expected = ("", password)
            self.assertEqual(entries.credentials(host), expected)

    @given(
        st.text()
        | st.lists(
            st.sampled_from(
                ["machine", "default", "login", "password", "macdef", "#", '"', "a", "\n", '"b c"']
            )
        ).map(" ".join)
    )
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text breaks the parser."""
        try:
            netrc.parse(text)
        except Malformed as error:
            self.assertRegex(str(error), r"^line \d+: ")


class ReadTests(SynchronousTestCase):
    def test_a_missing_file_has_no_entries(self) -> None:
        """A missing netrc file is no error, unless a setting names it."""
        with self.assertRaisesRegex(Unavailable, "absent does not exist"):
            netrc.read(Path(self.mktemp()) / "absent", is_expected=True)
        self.assertIsNone(netrc.read(Path(self.mktemp())).credentials("a"))

    def test_errors_name_the_file(self) -> None:
        """The warning names the broken file."""
        path = Path(self.mktemp())
        for data, reason in (
            (b"machine", "line 1: machine without a value"),
            (b"\n\xff", "line 2: is not UTF-8"),
            (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
        ):
            path.write_bytes(data)
            with self.assertRaisesRegex(Malformed, reason) as caught:
                netrc.read(path)
            self.assertIn(str(path), str(caught.exception))
        path.write_text("machine a login b password c")
        self.assertEqual(netrc.read(path).credentials("a"), ("b", "c"))

    def test_an_unreadable_file_is_unavailable(self) -> None:
        """A netrc file that cannot be read does not count as missing."""
        path = Path(self.mktemp())
        path.mkdir()
        with self.assertRaisesRegex(Unavailable, "cannot read"):
            netrc.read(path)
