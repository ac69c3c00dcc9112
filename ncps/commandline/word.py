"""A command and its arguments, as data."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen(kw_only=True)
class Word:
    """A flag or a positional argument of one command.

    :param name: with dashes in front if it is a flag.
    :param metavar: the word for the value in the help; empty for a flag without value.
    :param bounds: the least and the largest number, if the value is a number.
    :param many: how often a positional argument may be given: empty for once, `?` or `*`.
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
        """Whether the value is the name of a file, which a shell can complete."""
        return self.metavar in {"FILE", "PATH"}


@frozen(kw_only=True)
class Command:
    """A command, or a word after which a step follows.

    :param run: function that runs it, as `module:name`; its arguments are the parsed arguments and,
        if the command takes settings, these. Empty for a command of `ncps.cli.Commands`.
    :param takes_settings: whether each setting is a flag of the command.
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


DRY_RUN: Final = Word(name="--dry-run", help="Only print what would be done.")
