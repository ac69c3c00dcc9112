"""Programs and files that tests need of the machine; a test without them is skipped or fails.

A test that cannot run says so through `require`: it is skipped on a developer's machine and
fails where `NCPS_REQUIRE_SERVICES=1` promises that everything is there, as in CI. Nothing else
in the tests may skip.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from unittest import SkipTest


def require(present: object, what: str) -> None:
    """Skip the test unless `present` is true; fail it where services are required."""
    if present:
        return
    if os.environ.get("NCPS_REQUIRE_SERVICES") == "1":
        raise AssertionError(f"NCPS_REQUIRE_SERVICES is 1, but there is no {what}")
    raise SkipTest(f"no {what}")


def cache_directory() -> Path:
    """The directory in which `.ci/run` keeps downloads for the tests."""
    named = os.environ.get("NCPS_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ncps-tests"


def unpacked(name: str, program: str, *libraries: str) -> tuple[str, ...]:
    """Return the command of a program in a tree of `aptroot.sh`; empty without the whole tree.

    The program runs through the loader of its own tree, with the libraries there. `{applet}` in
    the command is the name under which the program sees itself.

    :param name: of the tree, in the directory for downloads.
    :param program: where it lies in the tree.
    :param libraries: directories in the tree that hold more libraries than the usual one.
    """
    root = cache_directory() / name
    loaders = [*root.glob("usr/lib64/ld-linux-*.so.2"), *root.glob("usr/lib/ld-linux-*.so.1")]
    if not (root / ".complete").is_file() or not loaders:
        return ()
    places = (f"usr/lib/{platform.machine()}-linux-gnu", *libraries)
    path = ":".join(f"{root}/{place}" for place in places)
    return (
        *(str(loaders[0]), "--library-path", path),
        *("--argv0", "{applet}", f"{root}/{program}"),
    )
