"""Each command imports the modules that it needs, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 120.0

OF_A_CONFIGURATION: Final = (
    "boto3",
    "botocore",
    "google",
    "grpc",
    "jwt",
    "opentelemetry",
    "psycopg",
    "pymysql",
    "txredisapi",
    "yaml",
    "ncps.assembly.bucket",
    "ncps.assembly.oidc",
    "ncps.auth.oidc",
    "ncps.process.crew",
    "ncps.database.dialects.mysql",
    "ncps.database.dialects.postgresql",
    "ncps.database.dialects.server",
    "ncps.database.server",
    "ncps.locks.postgresql",
    "ncps.locks.redis",
    "ncps.observe.otel",
    "ncps.process.datagrams",
    "ncps.process.gathering",
    "ncps.process.rundir",
    "ncps.process.worker",
)
"""Modules that a daemon with a directory, SQLite and one process must not import."""

OF_A_SERVER: Final = (
    "OpenSSL",
    "asyncio",
    "cryptography",
    "prometheus_client",
    "treq",
    "twisted",
    "zope",
)
"""Modules that a command for arguments and settings must not import."""


OF_A_DAEMON: Final = (
    "backports",
    "brotli",
    "lz4",
    "nacl",
    "platformdirs",
    "tomllib",
    "zstandard",
)
"""Further modules that help and version must not import."""

OF_LATER: Final = (
    "brotli",
    "lz4",
    "multiprocessing",
    "tomllib",
    "unittest",
    "zstandard",
)
"""Modules that a plain daemon must not import before it listens."""

SERVE: Final = """
import os, sys
import ncps.cli
from ncps.assembly import role

async def listen(*_):
    print(*sys.modules, file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)

role.listen = listen
ncps.cli.run(["serve", "--cache-storage-local", DIRECTORY + "/store", "--cache-database-url",
    "sqlite:" + DIRECTORY + "/db", "--cache-upstream-url", "http://127.0.0.1:9"])
"""
"""Starts a daemon, and ends it before it listens."""


def loaded_by(code: str) -> set[str]:
    """Return the names of the modules that an interpreter has imported after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


class StartTests(SynchronousTestCase):
    def test_arguments_and_settings_need_no_server(self) -> None:
        """Help, version, completion and `ncps settings` import no Twisted."""
        for arguments in (
            ["--version"],
            ["serve", "--help"],
            ["settings"],
            ["completion", "bash"],
            ["completion", "fish"],
        ):
            loaded = loaded_by(f"from ncps.cli import run; run({arguments!r})")
            self.assertIn("ncps.settings.table", loaded)
            self.assertEqual([], sorted(loaded & {*OF_A_SERVER, *OF_A_CONFIGURATION}), arguments)

    def test_help_needs_little(self) -> None:
        """Help and version import the texts of the settings, and not the libraries of a daemon."""
        for arguments in (["--version"], ["--help"], ["serve", "--help"], ["keys", "--help"]):
            loaded = loaded_by(f"from ncps.cli import run; run({arguments!r})")
            self.assertEqual([], sorted(loaded & set(OF_A_DAEMON)), arguments)

    def test_a_daemon_listens_first(self) -> None:
        """A daemon imports codecs and other libraries after it has begun to listen."""
        loaded = loaded_by(f"DIRECTORY = {str(Path(self.mktemp()).absolute())!r}\n{SERVE}")
        self.assertIn("ncps.assembly.runtime", loaded)
        self.assertEqual([], sorted(loaded & {*OF_LATER, *OF_A_CONFIGURATION}))

    def test_a_plain_daemon_needs_no_other_adapters(self) -> None:
        """A plain daemon imports no code for buckets, database servers, Redis and workers."""
        loaded = loaded_by("import ncps.cli, ncps.assembly.service")
        self.assertIn("ncps.database.local", loaded)
        self.assertEqual([], sorted(loaded & set(OF_A_CONFIGURATION)))
