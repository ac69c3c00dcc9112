"""What a test needs of its surroundings, and what happens where that is missing.

A test that cannot run says so through `require`: it is skipped on a developer's machine and
fails where `NCPS_REQUIRE_SERVICES=1` promises that everything is there, as in CI. Nothing else
in the tests may skip.
"""

from __future__ import annotations

import os
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
    """Where `.ci/run` leaves what tests need and nobody wants to fetch twice."""
    named = os.environ.get("NCPS_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ncps-tests"
