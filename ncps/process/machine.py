"""Load, memory and power supply of the machine, as its kernel reports them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

POWER: Final = Path("/sys/class/power_supply")
MEMORY: Final = Path("/proc/meminfo")
_LOAD_SCALE: Final = 1 << 16
_SYSINFO_WORDS: Final = 64
"""Words of memory for `struct sysinfo`, which has 14 or fewer."""


def load() -> float | None:
    """Return the load average of the last minute; None if the kernel does not report it.

    Without access to `/proc/loadavg` (`ProcSubset=pid` of systemd) it comes from sysinfo(2).
    """
    try:
        return os.getloadavg()[0]
    except OSError:
        return _load_of_sysinfo()


def _load_of_sysinfo() -> float | None:
    words = (ctypes.c_ulong * _SYSINFO_WORDS)()
    try:
        failed = ctypes.CDLL(None).sysinfo(words)
    except (OSError, AttributeError):
        return None
    return None if failed else words[1] / _LOAD_SCALE  # the first word is the uptime


def available_memory(path: Path = MEMORY) -> int | None:
    """Return the bytes that programs can get without swapping; None if they are not reported.

    See proc_meminfo(5), MemAvailable.
    """
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if name == "MemAvailable" and number.isdecimal():
            return int(number) * 1024
    return None


def is_on_battery(power: Path = POWER) -> bool:
    """Return whether a battery of the machine is being discharged, and no mains supply is on.

    See `Documentation/ABI/testing/sysfs-class-power` of Linux.
    """
    is_discharging = False
    for supply in _supplies(power):
        kind = _word(supply / "type")
        if kind == "Mains" and _word(supply / "online") == "1":
            return False
        is_of_machine = _word(supply / "scope") != "Device"  # a mouse has a battery, too
        if kind == "Battery" and is_of_machine and _word(supply / "status") == "Discharging":
            is_discharging = True
    return is_discharging


def _supplies(power: Path) -> Iterator[Path]:
    try:
        yield from sorted(power.iterdir())
    except OSError:
        return


def _word(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
