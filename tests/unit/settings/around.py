"""Surroundings made up for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.surroundings import Surroundings


def surroundings(
    environ: Mapping[str, str] | None = None,
    *,
    config_dir: Path = Path("/nonexistent"),
    machine_name: str = "box",
    is_terminal: bool = False,
) -> Surroundings:
    return Surroundings(
        environ=environ or {},
        home=Path("/home/me"),
        config_dir=config_dir,
        state_dir=Path("/state"),
        machine_name=machine_name,
        is_terminal=is_terminal,
    )


def load_with(flags: Mapping[str, str | Sequence[str]] | None = None, **environ: str) -> Settings:
    """Load from flags and variables."""
    texts = {
        flag: [text] if isinstance(text, str) else text for flag, text in (flags or {}).items()
    }
    return load(texts, surroundings=surroundings(environ))


def problems_of(
    flags: Mapping[str, str | Sequence[str]] | None = None, **environ: str
) -> tuple[str, ...]:
    """Return what is wrong with flags and variables; empty if nothing is."""
    try:
        load_with(flags, **environ)
    except InvalidSettings as error:
        return error.problems
    return ()
