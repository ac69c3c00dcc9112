"""The program under test as users run it: a process on a free port with its own directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from attrs import frozen

from tests import authorities
from tests.e2e.forked import Forked
from tests.server import Process, Server
from tests.waiting import tail

READY_DEADLINE = 30.0  # seconds from start to /readyz
STOP_DEADLINE = 30.0  # seconds from SIGTERM to the end
HOSTNAME = "test"


@frozen
class UpstreamCache:
    """An upstream, and the key to trust."""

    url: str
    public_key: str


@frozen(kw_only=True)
class Answer:
    """The answer to a plain GET."""

    status: int
    headers: dict[str, str]
    body: bytes


def fetch(url: str, *, headers: dict[str, str] | None = None, deadline: float = 30.0) -> Answer:
    """GET a URL, without any proxy; error statuses are answers, too."""
    opener = build_opener(ProxyHandler({}))
    opener.addheaders = list((headers or {}).items())
    try:
        with opener.open(url, timeout=deadline) as response:
            return Answer(
                status=response.status, headers=dict(response.headers), body=response.read()
            )
    except HTTPError as error:
        with error:
            return Answer(status=error.code, headers=dict(error.headers), body=error.read())


class Daemon(Server):
    """`ncps serve` in one directory; it may be started, ended and restarted on its port.

    :param options: further command line options.
    :ivar program: the program for the interpreter.
    :ivar environment: variables of its own.
    :ivar is_forked: whether it is forked from a process that has loaded the program already.
    :ivar main: of one that is forked: module with the function `main` that it runs.
    :ivar constants: of one that is forked: values that differ from the program's, by name of module
        and variable.
    """

    name = "ncps"

    def __init__(
        self, directory: Path, upstreams: Sequence[UpstreamCache], *, options: Sequence[str] = ()
    ) -> None:
        super().__init__(directory)
        self.storage = directory / "storage"
        self.upstreams = tuple(upstreams)
        self.options = tuple(options)
        self.program: tuple[str, ...] = ("-m", "ncps")
        self.environment: dict[str, str] = {}
        self.is_forked = False
        self.main = "ncps.__main__"
        self.constants: dict[str, float] = {}
        for path in (self.storage, directory / "home", directory / "tmp"):
            path.mkdir(parents=True)

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return the command line."""
        command = [
            *(sys.executable, *self.program, "serve"),
            *("--server-addr", f"127.0.0.1:{self.port}"),
            *("--cache-hostname", HOSTNAME),
            *("--cache-storage-local", str(self.storage)),
            *("--cache-database-url", f"sqlite:{self.directory}/catalog.sqlite"),
            *("--cache-temp-path", str(self.directory / "tmp")),
        ]
        for upstream in self.upstreams:
            command += ["--cache-upstream-url", upstream.url]
            command += ["--cache-upstream-public-key", upstream.public_key]
        return [*command, *self.options]

    def start(self, deadline: float = READY_DEADLINE) -> None:
        """Start it and wait until it is ready, for at most `deadline` seconds."""
        super().start(deadline)

    def launch(self) -> Process:
        """Start the program without waiting for it."""
        environment = {
            "HOME": str(self.directory / "home"),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
            **authorities.variables(self.environment),
            **self.environment,
        }
        command = self.command()
        with self.log_file.open("ab") as log:
            if self.is_forked and command[1:3] == ["-m", "ncps"]:
                where, output = self.directory, log.fileno()
                return Forked(
                    command[3:],
                    environment,
                    where,
                    output,
                    constants=self.constants,
                    program=self.main,
                )
            return subprocess.Popen(
                command,
                env=environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Return whether it is ready; False if nothing listens."""
        with contextlib.suppress(URLError, OSError):
            return self.is_ready()
        return False

    def is_ready(self) -> bool:
        """Return whether it is ready. Raises OSError if nothing listens."""
        return fetch(f"{self.url}/readyz", deadline=5).status == 200

    def public_key(self) -> str:
        """Return the key that clients must trust."""
        answer = fetch(f"{self.url}/pubkey")
        if answer.status != 200:
            raise AssertionError(f"/pubkey: {answer.status} {answer.body!r}")
        return answer.body.decode().strip()

    def stop(self) -> None:
        """Send SIGTERM and check that it ends with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            text = f"ncps did not stop within {STOP_DEADLINE} s:\n{tail(self)}"
            raise AssertionError(text) from None
        if code != 0:
            raise AssertionError(f"ncps exited with {code}:\n{tail(self)}")

    def kill(self) -> None:
        """Kill it and all its children; harmless if it is not running."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def stored_nars(self) -> list[Path]:
        """Return the files with final names of NARs; directories may go meanwhile."""
        tree = os.walk(self.storage / "store" / "nar")
        paths = [Path(directory, name) for directory, _, names in tree for name in names]
        return [path for path in paths if path.is_file()]
