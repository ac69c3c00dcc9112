"""Surroundings and configuration files for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.surroundings import Surroundings

OTHER_KEY = "other-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


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


class FileCase(SynchronousTestCase):
    """Loads configuration files written for one test."""

    def write(self, text: str, name: str = "config.yaml") -> Path:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        path = directory / name
        path.write_text(text)
        return path

    def load_file(
        self,
        text: str,
        name: str = "config.yaml",
        flags: Mapping[str, list[str]] | None = None,
        **environ: str,
    ) -> Settings:
        path = self.write(text, name)
        return load({"config": [str(path)], **(flags or {})}, surroundings=surroundings(environ))

    def problems_of_file(self, text: str, name: str = "config.yaml") -> tuple[str, ...]:
        """Return what is wrong with a file, without the part that names it."""
        path = self.write(text, name)
        with self.assertRaises(InvalidSettings) as caught:
            load({"config": [str(path)]}, surroundings=surroundings())
        for problem in caught.exception.problems:
            self.assertTrue(problem.startswith(f"file {path}: "), problem)
        return tuple(
            problem.removeprefix(f"file {path}: ") for problem in caught.exception.problems
        )
