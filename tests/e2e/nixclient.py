"""Real Nix clients, each with a user's directories of its own.

Three releases are used: the `nix` on PATH (Debian's nix-bin in CI), and two newer ones that
`.ci/run` unpacks beside the system with `aptroot.sh`, run through their own loaders. Every client
has its own HOME, settings and store in a temporary directory, so nothing is remembered from one
to the next and neither root nor a daemon nor /nix is needed.
"""

from __future__ import annotations

import bz2
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

from tests.services import require, unpacked

SETTINGS = """\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
trusted-public-keys =
connect-timeout = 5
"""
DEADLINE = 120.0  # seconds for any one command of a client


@frozen(kw_only=True)
class NixRelease:
    """A Nix that can be run on this machine.

    :param loader: command line in front of each program, with `{applet}` in it; empty for
        programs on PATH.
    """

    name: str
    loader: tuple[str, ...] = ()

    def command(self, applet: str) -> list[str]:
        """Return the start of a command line for `nix`, `nix-store` and so on."""
        if not self.loader:
            return [applet]
        return [part.format(applet=applet) for part in self.loader]


@cache
def find_release(name: str) -> NixRelease | None:
    """Return a release by name, `system` (from PATH), `trixie` or `sid`; None without it."""
    if name == "system":
        return NixRelease(name=name) if shutil.which("nix-store") else None
    loader = unpacked(f"nix-{name}", "usr/bin/nix", "usr/lib/nix")
    return NixRelease(name=name, loader=loader) if loader else None


def release(name: str) -> NixRelease:
    """Return a release by name; without it the test is skipped, or fails in CI."""
    found = find_release(name)
    require(found, f"Nix client '{name}' (see .ci/run)")
    assert found is not None
    return found


class NixError(Exception):
    """A client's command failed, or did not end in time; the text has all its output."""


class NixClient:
    """A Nix with a new HOME and a new store under `directory`.

    :ivar wrapper: command line in front of each program.
    """

    def __init__(self, release: NixRelease, directory: Path) -> None:
        self.release = release
        self.wrapper: tuple[str, ...] = ()
        self.home = directory / "home"
        self.store = directory / "store"
        configuration = directory / "conf"
        for path in (self.home, configuration):
            path.mkdir(parents=True)
        (configuration / "nix.conf").write_text(SETTINGS)
        self.environment = {
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "NIX_CONF_DIR": str(configuration),
            "NIX_PATH": "",
            "NIX_SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
            "PATH": os.environ["PATH"],
            "USER": "nobody",
        }

    def start(self, applet: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program in a process group of its own; its output is one pipe."""
        return subprocess.Popen(
            [*self.wrapper, *self.release.command(applet), *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, applet: str, *arguments: str, deadline: float = DEADLINE) -> str:
        """Run a program to its end and return its output. Raises NixError if it failed."""
        return finish(self.start(applet, *arguments), deadline=deadline)

    # Actions of users

    def start_install(
        self, url: str, public_keys: Sequence[str], *paths: str
    ) -> subprocess.Popen[str]:
        """Begin to realise paths with one substituter, trusting only these keys."""
        return self.start(
            "nix-store",
            *("--store", str(self.store), "--realise", *paths),
            *("--option", "substituters", url),
            *("--option", "trusted-public-keys", " ".join(public_keys)),
        )

    def install(self, url: str, public_keys: Sequence[str], *paths: str) -> str:
        """Realise paths as `start_install` does and wait for it."""
        return finish(self.start_install(url, public_keys, *paths))

    def start_copy(
        self, url: str, public_keys: Sequence[str], *paths: str
    ) -> subprocess.Popen[str]:
        """Begin to copy paths with `nix copy --from`, trusting only these keys."""
        return self.start(
            "nix",
            *("copy", "--from", url, "--to", str(self.store), *paths),
            *("--option", "trusted-public-keys", " ".join(public_keys)),
        )

    def copy(self, url: str, public_keys: Sequence[str], *paths: str) -> str:
        """Copy paths as `start_copy` does and wait for it."""
        return finish(self.start_copy(url, public_keys, *paths))

    def verify(self, public_keys: Sequence[str], *paths: str) -> None:
        """Check contents and signatures of the store's paths. Raises NixError if one is wrong."""
        self.run("nix-store", "--store", str(self.store), "--verify", "--check-contents")
        keys = " ".join(public_keys)
        self.run(
            "nix",
            *("store", "verify", "--store", str(self.store), "--recursive", *paths),
            *("--option", "trusted-public-keys", keys),
        )

    def closure(self, path: str) -> list[str]:
        """Return the store paths that a path needs, with the path itself."""
        return self.run(
            "nix-store", "--store", str(self.store), "--query", "--requisites", path
        ).split()

    def keep_log(self, drv: str, text: str) -> None:
        """Make the store keep a log, as if it had built the derivation."""
        name = drv.rpartition("/")[2]
        log = self.store / "nix/var/log/nix/drvs" / name[:2] / f"{name[2:]}.bz2"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(bz2.compress(text.encode()))

    def real_path(self, path: str) -> Path:
        """Return the place of a store path on disk."""
        return Path(f"{self.store}{path}")


def finish(process: subprocess.Popen[str], *, deadline: float = DEADLINE) -> str:
    """Wait for a program and return its output. Raises NixError if it failed or hangs."""
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        output = end(process)
        raise NixError(f"{process.args!r} did not end within {deadline} s:\n{output}") from None
    if process.returncode:
        raise NixError(f"{process.args!r} exited with {process.returncode}:\n{output}")
    return output


def end(process: subprocess.Popen[str]) -> str:
    """Kill a program with all its children and return its output; harmless if it ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is None or process.stdout.closed:
        return ""
    output, _ = process.communicate(timeout=10)
    return output
