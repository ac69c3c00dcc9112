"""A command and its words, as data."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen(kw_only=True)
class Word:
    """A flag or a positional argument of one command.

    :param name: with dashes in front if it is a flag.
    :param metavar: stands for the value in the help; empty for a flag without value.
    :param bounds: the least and the largest number, if the value is a number.
    :param many: how often a positional argument may stand: empty for once, `?` or `*`.
    """

    name: str
    help: str
    metavar: str = ""
    default: str | int | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None
    many: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it begins with dashes."""
        return self.name.startswith("-")

    @property
    def is_path(self) -> bool:
        """Whether a shell completes the names of files."""
        return self.metavar in {"FILE", "PATH"}


@frozen(kw_only=True)
class Command:
    """A command, or a word that further commands follow.

    :param run: function that runs it without settings, as `module:name`; it is given the parsed
        arguments. Empty for a command of `ncps.cli.Commands`, which is given settings.
    :param takes_settings: whether each setting is a flag of it.
    :param is_former: whether only the Go program has it.
    """

    name: str
    help: str
    aliases: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    children: tuple[Command, ...] = ()
    run: str = ""
    takes_settings: bool = True
    is_former: bool = False


DRY_RUN: Final = Word(name="--dry-run", help="Only say what would be done.")
