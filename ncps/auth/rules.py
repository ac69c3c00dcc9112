"""Rules: give a client scopes by facts that others vouch for (P8).

A fact has a name and values: a claim of a token, a name in a certificate, or the user that a proxy
names. The first rule whose conditions are all true applies. So an operator writes a rule for few
clients before a rule for many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from ncps.auth.patterns import compiled
from ncps.auth.principal import Principal, Scope
from ncps.settings.kinds.auth import AuthRule

LONGEST_VALUE: Final = 1024
"""Characters of a value that may match a pattern; a longer one matches none."""

LONGEST_NAME: Final = 200
"""Characters of a principal's name."""

Facts = Mapping[str, tuple[str, ...]]


def matches(pattern: str, value: str) -> bool:
    """Return whether a pattern matches a whole value.

    `*` matches any characters, also none. The time is proportional to the length of the value, for
    any number of `*`.
    """
    if len(value) > LONGEST_VALUE:
        return False
    first, *others = pattern.split("*")
    if not others:
        return value == pattern
    *middle, last = others
    if len(value) < len(first) + len(last) or not value.startswith(first):
        return False
    if not value.endswith(last):
        return False
    at, end = len(first), len(value) - len(last)
    for piece in middle:
        at = value.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@frozen(kw_only=True)
class _Rule:
    scopes: frozenset[Scope]
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    paths: re.Pattern[str] | None

    def holds(self, facts: Facts) -> bool:
        return all(
            any(matches(pattern, value) for value in facts.get(name, ()) for pattern in patterns)
            for name, patterns in self.conditions
        )


class ScopeRules:
    """The rules of one source of credentials, in order. Raises Malformed for a wrong path."""

    def __init__(self, rules: Sequence[AuthRule]) -> None:
        self._rules = tuple(
            _Rule(
                scopes=frozenset(map(Scope, rule.scopes)),
                conditions=rule.conditions,
                paths=compiled(rule.path) if rule.path else None,
            )
            for rule in rules
        )

    def __len__(self) -> int:
        return len(self._rules)

    def principal(self, name: str, facts: Facts, source: str) -> Principal:
        """Return the client with the scopes of the first rule that applies; with none if none does.

        :param name: name of the client; it is cut, and unprintable characters are removed.
        :param source: name of the source of credentials with these rules.
        """
        shown = "".join(sign if sign.isprintable() else "?" for sign in name[:LONGEST_NAME])
        for rule in self._rules:
            if rule.holds(facts):
                return Principal(name=shown, scopes=rule.scopes, paths=rule.paths, source=source)
        return Principal(name=shown, scopes=frozenset(), source=source)
