"""The machine and the programs of a run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import twisted
from ncps import __version__

PROJECT = Path(__file__).parents[1]


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def _output(*command: str) -> str:
    """Return the standard output and error of a command; some print their version as an error."""
    try:
        done = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def _version(*command: str) -> str:
    found = re.search(r"\d+(\.\d+)+", _output(*command))
    return found[0] if found else "?"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe() -> dict[str, object]:
    """Return the facts that are needed to compare the figures of two runs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "commit": _output("git", "describe", "--always", "--dirty"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "ncps": __version__,
        "nginx": _version("nginx", "-v"),
        "wrk": _version("wrk", "-v"),
        "nix": _version("nix", "--version"),
    }
