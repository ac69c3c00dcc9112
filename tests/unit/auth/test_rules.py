"""Rules, from facts about clients to scopes."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.principal import Scope
from ncps.auth.rules import LONGEST_NAME, LONGEST_VALUE, ScopeRules, matches
from ncps.settings.kinds.auth import OIDC_RULE, SCOPES, AuthRule


def rule(text: str) -> AuthRule:
    found = OIDC_RULE.parse(text)
    assert isinstance(found, AuthRule)
    return found


class PatternTests(SynchronousTestCase):
    def test_patterns_hold_from_the_first_to_the_last_character(self) -> None:
        """A part of a name is another name; only * matches other characters."""
        for pattern, value in (
            ("main", "main"),
            ("refs/heads/*", "refs/heads/a/b"),
            ("refs/heads/*", "refs/heads/"),
            ("*", ""),
            ("*", "line\nbreak"),
            ("*-main", "x-main"),
            ("a*b*c", "aXbXbXc"),
            ("a*b*c", "abc"),
            ("a**c", "abc"),
            ("*ab*", "xaab"),
            ("a.b", "a.b"),
        ):
            self.assertTrue(matches(pattern, value), (pattern, value))
        for pattern, value in (
            ("main", "main2"),
            ("main", "xmain"),
            ("main", "Main"),
            ("main", "main\n"),
            ("refs/heads/*", "refs/tags/refs/heads/x"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("a*bc*c", "abc"),
            ("a.b", "axb"),
            ("[a]", "a"),
            ("", "x"),
        ):
            self.assertFalse(matches(pattern, value), (pattern, value))

    def test_patterns_agree_with_expressions(self) -> None:
        """On all short texts of two letters, a pattern means the same as its expression."""
        texts = [""]
        for _ in range(5):
            texts += [text + sign for text in texts[-(1 << 5) :] for sign in "ab"]
        patterns = ["*", "a*", "*a", "a*a", "*a*", "a*b*", "*ab*b", "a*a*a", "**a", "aa*aa"]
        for pattern in patterns:
            expression = re.compile(pattern.replace("*", ".*"))
            for text in texts:
                expected = expression.fullmatch(text) is not None
                self.assertEqual(expected, matches(pattern, text), (pattern, text))

    def test_a_long_value_matches_nothing(self) -> None:
        """The length of a value is bounded, also for *."""
        self.assertTrue(matches("*", "x" * LONGEST_VALUE))
        self.assertFalse(matches("*", "x" * (LONGEST_VALUE + 1)))


class RulesTests(SynchronousTestCase):
    def scopes(self, text: str, **facts: str | tuple[str, ...]) -> str:
        rules = ScopeRules([rule(line) for line in text.splitlines()])
        given = {name: (v,) if isinstance(v, str) else v for name, v in facts.items()}
        found = rules.principal("x", given, "oidc").scopes
        return ",".join(word for word in SCOPES if Scope(word) in found)

    def test_all_conditions_hold(self) -> None:
        """If one is false, or its fact is missing, the rule gives no scope."""
        text = "scope=read,write; repository=org/repo; ref=refs/heads/main,refs/tags/*"
        right = {"repository": "org/repo", "ref": "refs/tags/v1"}
        self.assertEqual("read,write", self.scopes(text, **right))
        self.assertEqual("", self.scopes(text, **{**right, "ref": "refs/pull/1/merge"}))
        self.assertEqual("", self.scopes(text, repository="org/repo"))
        self.assertEqual("", self.scopes(text))

    def test_the_first_rule_that_holds_counts(self) -> None:
        """Later rules add nothing."""
        text = "scope=read; ref=x\nscope=write; ref=*"
        self.assertEqual("read", self.scopes(text, ref="x"))
        self.assertEqual("write", self.scopes(text, ref="y"))

    def test_one_of_several_values_is_enough(self) -> None:
        """A list of groups matches if one of them does."""
        self.assertEqual("pin", self.scopes("scope=pin; groups=b", groups=("a", "b")))
        self.assertEqual("", self.scopes("scope=pin; groups=b", groups=()))

    def test_paths_are_those_of_the_rule(self) -> None:
        """The expression matches the whole base name."""
        found = ScopeRules([rule("scope=write; sub=*; path=[a-z0-9]{32}-hello-.*")])
        principal = found.principal("x", {"sub": ("y",)}, "oidc")
        self.assertTrue(principal.may(Scope.WRITE, f"{'a' * 32}-hello-1.0"))
        self.assertFalse(principal.may(Scope.WRITE, f"{'a' * 32}-nothello-1.0"))

    def test_names_are_fit_for_a_log(self) -> None:
        """No line break, no lone surrogate, and not too long."""
        found = ScopeRules([]).principal("a\nb\ud800" + "x" * 1000, {}, "oidc")
        self.assertTrue(found.name.startswith("a?b?x"))
        self.assertEqual(LONGEST_NAME, len(found.name))
        self.assertEqual(frozenset(), found.scopes)

    def test_the_words_of_settings_are_the_scopes(self) -> None:
        """The settings are on a lower floor and cannot import the scopes."""
        self.assertEqual(SCOPES, tuple(scope.value for scope in Scope))
