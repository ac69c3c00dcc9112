"""The facts that settings take from their process, as one value that tests can make."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from ncps.settings.journal import is_journal


@frozen(kw_only=True)
class Surroundings:
    """Environment variables, well-known places and the name of this machine.

    :param environ: not part of the repr, since variables may hold secrets.
    :param config_dir: where the default configuration file is looked for.
    :param state_dir: the directory for data that must survive.
    :param is_terminal: whether standard output is a terminal.
    :param is_journal: whether standard output is the journal of systemd.
    """

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    config_dir: Path
    state_dir: Path
    machine_name: str
    is_terminal: bool
    is_journal: bool = False

    @classmethod
    def of_process(cls) -> Surroundings:
        """Return those of this process; under systemd, `StateDirectory=` decides on `state_dir`."""
        import platformdirs  # noqa: PLC0415 - help needs no places

        state, _, _ = os.environ.get("STATE_DIRECTORY", "").partition(":")
        return cls(
            environ=dict(os.environ),
            home=Path("~").expanduser(),
            config_dir=platformdirs.user_config_path("ncps"),
            state_dir=Path(state) if state else platformdirs.user_state_path("ncps"),
            machine_name=socket.gethostname(),
            is_terminal=sys.stdout is not None and sys.stdout.isatty(),
            is_journal=is_journal(sys.stdout, os.environ),
        )
