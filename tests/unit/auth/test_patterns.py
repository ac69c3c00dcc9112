"""Patterns of store paths: allowed ones, and ones that could take long."""

from __future__ import annotations

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.patterns import LONGEST, LONGEST_NAME, compiled
from ncps.errors import Malformed

BASE = "00000000000000000000000000000000-hello-2.12"


class PatternTests(SynchronousTestCase):
    def test_useful_patterns(self) -> None:
        """Names, versions, alternatives, counts and classes mean the same as in Python."""
        for text, is_match in (
            (r".*-hello-.*", True),
            (r"[0-9a-z]{32}-hello-[0-9.]+", True),
            (r"[0-9a-z]+-(hello|curl)-2\.12", True),
            (r"\w+-hello-\d.\d{1,3}", True),
            (r"(?:.*-hello.*)?", True),
            (r"[]a^-]+|.*", True),
            (r"hello", False),
            (r".*-hello", False),
        ):
            self.assertEqual(is_match, compiled(text).fullmatch(BASE) is not None, text)

    def test_patterns_that_are_refused(self) -> None:
        """Those that would take Python years, and those that are no patterns."""
        for text in (
            "(a+)+b",
            "(a|a)*b",
            "(a*)*",
            "(.*){2}",
            ".*.*.*",
            "(a|a)" * 30,
            "a?" * 30,
            ".{0,200}" * 3,
            "(?=a)b",
            "(?P<a>b)",
            "(?i)a",
            r"(a)\1",
            r"a\b",
            "a**",
            "a+?",
            "*a",
            "a{",
            "{2}",
            "(a",
            "a)",
            "[a",
            "[z-a]",
            "[[a]",
            "[a--b]",
            "a{3,2}",
            "\\",
            "",
            "ä",
            "a\n",
            "(" * 20 + ")" * 20,
            "a" * (LONGEST + 1),
        ):
            with self.assertRaises(Malformed, msg=text):
                compiled(text)

    @given(st.text(alphabet="ab.*+?(|)[]{}\\1,^$-", max_size=24))
    @settings(deadline=None, max_examples=200)
    def test_whatever_is_accepted_is_quick(self, text: str) -> None:
        """A pattern is refused, or it matches the longest names in less than a second."""
        try:
            pattern = compiled(text)
        except Malformed:
            return
        re.compile(text)
        began = time.process_time()
        for letter in "ab":
            pattern.fullmatch(letter * (LONGEST_NAME - 1) + "!")
        self.assertLess(time.process_time() - began, 1.0)
