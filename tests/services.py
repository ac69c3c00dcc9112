"""Programs and files of the machine that tests need; a test without them is skipped or fails.

A test that may not be able to run calls `require`: the test is skipped on a developer's machine,
and fails with `NCPS_REQUIRE_SERVICES=1`, as in CI. No other code in the tests may skip.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from unittest import SkipTest


def require(present: object, what: str) -> None:
    """Skip the test unless `present` is true; fail it if services are required."""
    if present:
        return
    if os.environ.get("NCPS_REQUIRE_SERVICES") == "1":
        raise AssertionError(f"NCPS_REQUIRE_SERVICES is 1, but there is no {what}")
    raise SkipTest(f"no {what}")


def cache_directory() -> Path:
    """Return the directory in which `.ci/run` keeps downloads for the tests."""
    named = os.environ.get("NCPS_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ncps-tests"


def unpacked(name: str, program: str, *libraries: str) -> tuple[str, ...]:
    """Return the command of a program in a tree of `aptroot.sh`; empty without the whole tree.

    The program runs with the loader and the libraries of its own tree. `{applet}` in the command
    is the name that the program sees as its own.

    :param name: of the tree, in the directory for downloads.
    :param program: its path in the tree.
    :param libraries: directories in the tree with further libraries.
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
