"""The stand: an origin, nginx and ncps, which serve the same material."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.go_program import GoDaemon
from benchmarks.machine import PROJECT
from benchmarks.material import KEY, MadeNar, Material
from benchmarks.nginx import Nginx
from benchmarks.rounds import Sample
from tests.e2e.daemon import Daemon, UpstreamCache

STORE_DEADLINE = 60.0
PRETOUCHED = 700 << 20


class Stand:
    """Running servers for the measurements; `stop` stops them.

    One nginx is the origin of ncps and of the proxy_store of another nginx, which is measured.

    :param rounds: rounds of every point.
    :param seconds: length of every measurement that has a fixed length.
    :param go: file of the Go program of the same name, to measure it, too; None if there is none.
    :ivar go_daemon: the Go program on the same origin; None if there is none.
    """

    def __init__(
        self,
        directory: Path,
        noise: random.Random,
        *,
        rounds: int,
        seconds: int,
        go: Path | None = None,
    ) -> None:
        self.directory = directory
        self.noise = noise
        self.rounds = rounds
        self.seconds = seconds
        self.go = go
        self.material = Material(directory / "origin-files", noise)
        self.narinfo_files = directory / "narinfo-files"
        self.narinfo_files.mkdir()
        self.origin = Nginx(directory / "origin", self.material.directory)
        self.nginx = Nginx(
            directory / "nginx",
            self.narinfo_files,
            self.material.directory,
            store_for=self.origin.url(),
            hold_open=True,
        )
        self.daemon = Daemon(directory / "ncps", [UpstreamCache(self.origin.url(), KEY.public)])
        self.daemon.start()
        self.go_daemon: GoDaemon | None = None
        if go is not None:
            upstream = UpstreamCache(self.origin.url(), KEY.public)
            self.go_daemon = GoDaemon(go, directory / "go-program", [upstream])
            self.go_daemon.start()

    @property
    def narinfo_port(self) -> int:
        """The port on which nginx serves the narinfos of ncps."""
        return self.nginx.ports[0]

    @property
    def nar_port(self) -> int:
        """The port on which nginx serves NARs from files."""
        return self.nginx.ports[1]

    @property
    def proxy_port(self) -> int:
        """The port on which nginx fetches from the origin and stores the files."""
        return self.nginx.ports[2]

    @property
    def origin_port(self) -> int:
        """The port of the origin."""
        return self.origin.ports[0]

    def fresh(self, name: str) -> Path:
        """Return a path that nothing else uses."""
        number = sum(1 for _ in self.directory.glob(f"{name}-*"))
        return self.directory / f"{name}-{number}"

    def pretouch(self) -> None:
        """Make the host of a virtual machine allocate pages before they are measured."""
        file = self.fresh("pretouch")
        with file.open("wb") as out:
            for _ in range(PRETOUCHED >> 20):
                out.write(bytes(1 << 20))
        file.unlink()

    def wait_until_stored(self, made: MadeNar) -> Path:
        """Wait until ncps has published a NAR; return its file."""
        name = made.path.rpartition("/")[2]
        deadline = time.monotonic() + STORE_DEADLINE
        while time.monotonic() < deadline:
            for path in self.daemon.stored_nars():
                if path.name == name:
                    return path
            time.sleep(0.005)
        raise AssertionError(f"ncps has not stored {name}:\n{self.daemon.log[-4000:]}")

    def stop(self) -> None:
        """Stop all servers."""
        self.daemon.kill()
        if self.go_daemon is not None:
            self.go_daemon.kill()
        self.nginx.stop()
        self.origin.stop()


def get(port: int, path: str) -> bytes:
    """Send GET on a new connection; return the body. Raises AssertionError if it is not a 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return get_on(connection, path)
    finally:
        connection.close()


def get_on(connection: http.client.HTTPConnection, path: str, cache: str = "") -> bytes:
    """Do the same on an open connection, and check X-Cache if `cache` is not empty."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    said = response.headers.get("X-Cache", "")
    if response.status != 200 or (cache and said.upper() != cache):
        raise AssertionError(f"{path}: {response.status}, X-Cache {said!r}")
    return body


def sink(*arguments: object) -> Sample:
    """Run `benchmarks.sink` and return its result."""
    command = [sys.executable, "-m", "benchmarks.sink", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
