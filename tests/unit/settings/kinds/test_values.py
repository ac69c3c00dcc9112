from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds import values

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class DurationTests(SynchronousTestCase):
    def test_durations_of_go_mean_what_go_means(self) -> None:
        """Durations in existing configurations keep their length."""
        for text, seconds in {
            "300ms": 0.3,
            "5s": 5.0,
            "10m": 600.0,
            "24h": 86400.0,
            "1h30m": 5400.0,
            "1.5s": 1.5,
            ".5s": 0.5,
            "2us": 2e-6,
            "2\u00b5s": 2e-6,
            "7ns": 7e-9,
            "0": 0.0,
            "0s": 0.0,
        }.items():
            self.assertEqual(values.parse_duration(text), seconds, text)

    def test_other_text_is_refused_with_an_example(self) -> None:
        """A duration without a unit is refused, and the message shows a right one."""
        for text in ("", "5", "s", "5 s", "-5s", "+5s", "5d", "5S", "1h 3m", "5s5", "\u0665s"):
            with self.assertRaisesRegex(ValueError, "300ms, 5s, 10m or 1h30m"):
                values.parse_duration(text)

    def test_endless_durations_are_refused(self) -> None:
        """A duration that is too long for a clock is refused."""
        with self.assertRaisesRegex(ValueError, "292 years"):
            values.parse_duration("99999999999h")

    @given(
        st.lists(
            st.tuples(st.integers(0, 10**5), st.sampled_from(sorted(_UNITS))),
            min_size=1,
            max_size=20,
        )
    )
    def test_parts_add_up(self, parts: list[tuple[int, str]]) -> None:
        """The value of several parts is their sum."""
        text = "".join(f"{count}{unit}" for count, unit in parts)
        total = sum(count * _UNITS[unit] for count, unit in parts)
        self.assertLess(abs(values.parse_duration(text) - total), 1e-6 + total * 1e-12)

    @given(st.integers(0, 10**15))
    def test_shown_values_can_be_read(self, nanoseconds: int) -> None:
        """A shown duration can be copied into a configuration."""
        seconds = nanoseconds / 10**9
        self.assertEqual(values.parse_duration(values.show_duration(seconds)), seconds)

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text breaks the parser."""
        try:
            self.assertGreaterEqual(values.parse_duration(text), 0.0)
        except ValueError as error:
            self.assertNotIn(f" {text} " if len(text) > 3 else "\0", str(error))

    def test_a_bound_is_part_of_the_message(self) -> None:
        """The error for a short duration names the shortest one."""
        with self.assertRaisesRegex(ValueError, "at least 1s"):
            values.duration(at_least_s=1).parse("900ms")


class SizeTests(SynchronousTestCase):
    def test_letters_are_powers_of_1024(self) -> None:
        """Sizes mean what they mean in existing configurations."""
        for text, size in {
            "0": 0,
            "7B": 7,
            "1K": 1024,
            "64M": 64 << 20,
            "10g": 10 << 30,
            "2T": 2 << 40,
            "10GiB": 10 << 30,
            "10Gi": 10 << 30,
            "1kib": 1024,
            "5GB": 5 * 10**9,
            "5kB": 5000,
        }.items():
            self.assertEqual(values.parse_size(text), size, text)

    def test_other_text_is_refused_with_an_example(self) -> None:
        """A size without its letter is refused, and the message shows a right one."""
        for text in ("", "5", "G", "5BB", "5iB", "5GiBi", "5 G", "-5G", "1.5G", "5P", "\u0665G"):
            with self.assertRaisesRegex(ValueError, "64M or 10G"):
                values.parse_size(text)

    @given(st.integers(0, 10**14))
    def test_shown_values_can_be_read(self, size: int) -> None:
        """A shown size can be copied into a configuration."""
        self.assertEqual(values.parse_size(values.show_size(size)), size)


class PlainTests(SynchronousTestCase):
    def test_booleans(self) -> None:
        """True, false, 1 and 0 are booleans; other texts are not."""
        for text in ("true", "TRUE", "True", "1", "t"):
            self.assertIs(values.parse_boolean(text), True)
        for text in ("false", "False", "0", "f"):
            self.assertIs(values.parse_boolean(text), False)
        for text in ("", "yes", "on", "2", " true"):
            with self.assertRaisesRegex(ValueError, "true or false"):
                values.parse_boolean(text)
        self.assertEqual(values.show_boolean(False), "false")

    def test_a_word_beside_booleans(self) -> None:
        """All spellings of booleans still work if a setting gets a third value."""
        kind = values.boolean_or("auto")
        for text, value in (("auto", "auto"), ("true", "true"), ("0", "false"), ("T", "true")):
            self.assertEqual(value, kind.parse(text))
        with self.assertRaisesRegex(ValueError, "should be true, false or auto"):
            kind.parse("perhaps")

    def test_whole_numbers_have_bounds(self) -> None:
        """The error for a number out of bounds names the bounds."""
        kind = values.integer(at_least=1, at_most=9)
        self.assertEqual(kind.parse("7"), 7)
        with self.assertRaisesRegex(ValueError, "between 1 and 9"):
            kind.parse("0")
        for text in ("", "1.5", "0x1", "1" * 5000, "\u0665"):
            with self.assertRaisesRegex(ValueError, "whole number"):
                kind.parse(text)

    def test_host_names_are_bare(self) -> None:
        """A host name with scheme, path or port is refused, since it names the key."""
        self.assertEqual(values.parse_hostname("cache.example.org"), "cache.example.org")
        for text, reason in {
            "http://a": "scheme and path",
            "a/b": "scheme and path",
            "a:8501": "without a port",
            "": "bare host name",
            "a b": "bare host name",
            "-a": "bare host name",
        }.items():
            with self.assertRaisesRegex(ValueError, reason):
                values.parse_hostname(text)

    @given(st.text())
    def test_any_machine_name_becomes_a_host_name(self, name: str) -> None:
        """ncps starts on a machine with an unusual name."""
        host = values.hostname_of_machine(name)
        self.assertEqual(values.parse_hostname(host), host)

    def test_paths_become_absolute(self) -> None:
        """Paths stay right if the daemon changes its directory."""
        self.assertEqual(values.parse_path("/a/b"), Path("/a/b"))
        self.assertEqual(values.parse_path("a"), Path.cwd() / "a")
        self.assertEqual(values.parse_path("~/a"), Path.home() / "a")
        self.assertIsNone(values.parse_optional_path(""))
        self.assertEqual(values.show_optional(None), "")
        for text in ("", "a\0b", "~nobody-of-that-name/a"):
            with self.assertRaises(ValueError):
                values.parse_path(text)

    def test_public_keys_have_a_name_and_32_bytes(self) -> None:
        """A mistyped key is an error at the start, before any signature is checked."""
        good = "a-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
        self.assertEqual(values.parse_public_key(good), good)
        self.assertEqual(values.parse_public_key(good[:-1]), good)
        for text in ("", "a-1", "a-1:", "a-1:AAAA", good[3:], good + "=", f"a b{good}", "a:\u00e9"):
            with self.assertRaisesRegex(ValueError, "NAME:BASE64"):
                values.parse_public_key(text)

    def test_a_word_near_a_choice_is_suggested(self) -> None:
        """The error for a mistyped log level suggests the nearest one."""
        kind = values.choice(("info", "warn"))
        self.assertEqual(kind.parse("warn"), "warn")
        with self.assertRaisesRegex(ValueError, r"one of info, warn: did you mean warn\?"):
            kind.parse("Warn")
        with self.assertRaisesRegex(ValueError, r"one of info, warn$"):
            kind.parse("zzz")

    def test_text_is_one_line(self) -> None:
        """Line breaks in text are refused."""
        with self.assertRaisesRegex(ValueError, "printed"):
            values.parse_text("a\nb")

    def test_only_the_usual_store_directory_is_served(self) -> None:
        """Another store directory is refused until it works."""
        self.assertEqual(values.parse_store_dir("/nix/store/"), "/nix/store")
        with self.assertRaisesRegex(ValueError, "/nix/store"):
            values.parse_store_dir("/gnu/store")
