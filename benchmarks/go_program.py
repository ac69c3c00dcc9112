"""The Go program of the same name, for points that also measure it (`--go`)."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon, UpstreamCache, fetch
from tests.server import Process

_URL = re.compile(rb"^URL: (.+)$", re.MULTILINE)


class GoDaemon(Daemon):
    """The Go program over one directory, with the flags that both programs know.

    :param binary: the file of the program.
    """

    name = "the Go program"

    def __init__(
        self,
        binary: Path,
        directory: Path,
        upstreams: Sequence[UpstreamCache],
        *,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, upstreams, options=options)
        self._binary = binary

    def command(self) -> list[str]:
        """Return the command line."""
        words = super().command()
        return [
            str(self._binary),
            *("--analytics-reporting-enabled=false", "--log-level", "error"),
            *words[words.index("serve") :],
        ]

    def launch(self) -> Process:
        """Make the tables, and start the program without waiting for it."""
        subprocess.run(
            [str(self._binary), "migrate", "up"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "CACHE_DATABASE_URL": f"sqlite:{self.directory}/catalog.sqlite",
            },
            cwd=self.directory,
            check=True,
            capture_output=True,
        )
        return super().launch()

    def is_ready(self) -> bool:
        """Whether it reports that it can serve. Raises OSError if nothing listens."""
        return fetch(f"{self.url}/healthz", deadline=5).status == 200


def nar_path(narinfo: bytes) -> str:
    """Return the path of the NAR that a narinfo names, as a client of its cache asks for it."""
    found = _URL.search(narinfo)
    if found is None:
        raise AssertionError(f"a narinfo without URL: {narinfo!r}")
    return f"/{found[1].decode()}"
