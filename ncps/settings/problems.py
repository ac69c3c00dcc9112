"""The one error of the settings, with all problems together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ncps.errors import Malformed


class InvalidSettings(Malformed):
    """The settings cannot be used.

    :ivar problems: one line each, naming the flag, variable or file and key, what is wrong, and
        what would be right; never the value of a secret.
    :ivar warnings: further remarks, one line each.
    """

    def __init__(self, problems: Sequence[str], warnings: Iterable[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
