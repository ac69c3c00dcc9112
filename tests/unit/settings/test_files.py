from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.settings.files import LARGEST, parse_file, read_file

_TREE = {"cache.hostname": "a", "cache.lock.retry.jitter": True, "list": ["x", {"url": "y"}]}
_YAML = "cache:\n  hostname: a\n  lock: {retry: {jitter: true}}\n  empty:\nlist: [x, {url: y}]\n"
_TOML = 'list=["x", {url="y"}]\n[cache]\nhostname="a"\nlock.retry.jitter=true\n'
_JSON = (
    '{"cache": {"hostname": "a", "lock": {"retry": {"jitter": true}}, "empty": null},'
    ' "list": ["x", {"url": "y"}]}'
)


class SyntaxTests(SynchronousTestCase):
    def test_three_syntaxes_say_the_same(self) -> None:
        """YAML, TOML and JSON give the same values."""
        for text, suffix in ((_YAML, ".yaml"), (_YAML, ".YML"), (_TOML, ".toml"), (_JSON, ".json")):
            self.assertEqual(parse_file(text, suffix), _TREE, suffix)

    def test_without_a_telling_name_all_are_tried(self) -> None:
        """A file with another suffix can be read as well."""
        for text in (_YAML, _TOML, _JSON):
            self.assertEqual(parse_file(text, ".conf"), _TREE)
        with self.assertRaisesRegex(Malformed, "neither TOML nor JSON nor YAML: line 2"):
            parse_file("a: b\n\tc: [", "")

    def test_an_empty_file_has_no_settings(self) -> None:
        """An empty file is valid if the syntax allows it."""
        for suffix in (".yaml", ".toml", ""):
            self.assertEqual(parse_file("", suffix), {})
        self.assertEqual(parse_file("cache:\n", ".yaml"), {})

    def test_errors_name_the_line(self) -> None:
        """The error for a broken file names the line."""
        for text, suffix, reason in (
            ("a: 1\nb: [", ".yaml", r"line \d"),
            ("a: 1\nb: \x01", ".yaml", "line 2: a character"),
            ("a: 1\n---\nb: 2\n", ".yaml", "line 2"),
            ("a = 1\nb = \n", ".toml", "line 2"),
            ('{\n"a" 1}', ".json", "line 2"),
        ):
            with self.assertRaisesRegex(Malformed, reason):
                parse_file(text, suffix)

    def test_duplicate_keys_are_refused(self) -> None:
        """A key that is given twice is an error."""
        for text, suffix in (
            ("a: 1\nb: 1\na: 2\n", ".yaml"),
            ("a.b: 1\na: {b: 2}\n", ".yaml"),
            ("a = 1\na = 2\n", ".toml"),
            ('{"a": 1, "a": 2}', ".json"),
        ):
            with self.assertRaisesRegex(Malformed, "(?i)duplicate key|overwrite"):
                parse_file(text, suffix)
        with self.assertRaisesRegex(Malformed, "line 3: duplicate key 'a'"):
            parse_file("a: 1\nb: 1\na: 2\n", ".yaml")

    def test_yaml_cannot_expand(self) -> None:
        """A small YAML file cannot expand without end, nor make objects."""
        for text, reason in (
            ("a: &x 1\nb: *x\n", "line 1: anchors and aliases"),
            ("a: &x [1]\n", "line 1: anchors and aliases"),
            ("b: *x\n", "anchors and aliases"),
            ("<<: {a: 1}\na: !!python/name:os.system x\n", "line 2: tags"),
            ("a: !!bool x\n", "line 1: tags"),
            ("? [a]\n: b\n", "should be a name"),
        ):
            with self.assertRaisesRegex(Malformed, reason):
                parse_file(text, ".yaml")

    def test_keys_are_names_even_where_yaml_sees_something_else(self) -> None:
        """A key such as `on` is a name."""
        self.assertEqual(
            parse_file("on: a\n1: b\n<<: c\n", ".yaml"), {"on": "a", "1": "b", "<<": "c"}
        )

    def test_the_top_must_be_a_table(self) -> None:
        """A file that is no table of settings is refused."""
        for text, suffix in (("[1]", ".json"), ("hello", ".yaml"), ("- a\n", ".yaml")):
            with self.assertRaisesRegex(Malformed, "table of settings"):
                parse_file(text, suffix)

    def test_a_file_of_no_known_ending_is_told_the_endings(self) -> None:
        """The error names the suffix of each known syntax."""
        endings = r"end in \.yaml, \.yml, \.toml or \.json"
        for text in ("[cache]\nhostname = box\n", "hostname = box\n", "a: [\n"):
            with self.assertRaisesRegex(Malformed, endings):
                parse_file(text, ".ini")
        self.assertEqual(
            parse_file("[cache]\nhostname = 'box'\n", ".ini"), {"cache.hostname": "box"}
        )

    def test_deep_and_huge_values_are_refused(self) -> None:
        """Endless nesting and numbers of thousands of digits do not crash the start."""
        for text, suffix in (
            ("[" * 100000, ".json"),
            ("[" * 5000, ".yaml"),
            ("a: " + "9" * 5000, ".yaml"),
            ("a: 2024-13-45", ".yaml"),
            ('{"a": ' + "9" * 5000 + "}", ".json"),
        ):
            with self.assertRaisesRegex(Malformed, "too deep|cannot be read"):
                parse_file(text, suffix)

    @given(
        st.text() | st.text(alphabet='ab:-[]{}"\n #=.&*!|>1,', max_size=60),
        st.sampled_from([".yaml", ".toml", ".json", ""]),
    )
    @example("0b_", ".yaml")
    @example("a: 0b_", ".yaml")
    @example("a: .inf", ".yaml")
    def test_any_text_is_read_or_refused(self, text: str, suffix: str) -> None:
        """Every text gives settings or an error message."""
        try:
            values = parse_file(text, suffix)
        except Malformed as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue(all(isinstance(key, str) for key in values))


class ReadTests(SynchronousTestCase):
    def test_size_and_encoding_are_checked(self) -> None:
        """A file that is too large, or not text, is refused before it is parsed."""
        path = Path(self.mktemp()).with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xef\xbb\xbfa: 1\n")
        self.assertEqual(read_file(path), {"a": 1})
        path.write_bytes(b"a: 1\nb: \xff\n")
        with self.assertRaisesRegex(Malformed, "line 2: is not UTF-8"):
            read_file(path)
        path.write_bytes(b"#" * (LARGEST + 1))
        with self.assertRaisesRegex(Malformed, "larger than 1 MiB"):
            read_file(path)
