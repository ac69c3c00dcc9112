"""The command `ncps version`: the versions that a bug report should name."""

from __future__ import annotations

import platform
import sys
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version

import ncps


def command(options: Namespace) -> int:
    """Print the versions of the program, of Python, of the system and of Twisted."""
    del options
    try:
        twisted = version("twisted")
    except PackageNotFoundError:
        twisted = "of unknown version"
    sys.stdout.write(
        f"ncps {ncps.__version__}\n"
        f"{platform.python_implementation()} {platform.python_version()}\n"
        f"Twisted {twisted}\n"
        f"{platform.system()} {platform.release()} {platform.machine()}\n"
    )
    return 0
