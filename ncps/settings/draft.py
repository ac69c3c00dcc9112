"""The draft of the settings: the values of all sources, before rules check them together."""

from __future__ import annotations

from attrs import Factory, define

from ncps.settings.surroundings import Surroundings


@define
class Draft:
    """The values of one reading, with problems and warnings.

    :ivar values: by attribute. A value that could not be parsed is missing.
    :ivar origins: by key, where each value came from.
    :ivar problems: one line each; any of them makes the settings invalid.
    :ivar warnings: lines for the log.
    """

    surroundings: Surroundings
    values: dict[str, object] = Factory(dict)
    origins: dict[str, str] = Factory(dict)
    problems: list[str] = Factory(list)
    warnings: list[str] = Factory(list)

    def is_given(self, key: str) -> bool:
        """Whether a source gives this setting, so that its value is not the default."""
        return self.origins.get(key, "default") != "default"
