"""Load, memory and power of the machine."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.process import machine


class LoadTests(SynchronousTestCase):
    def test_without_proc(self) -> None:
        """If /proc/loadavg is hidden, the kernel gives about the same load by sysinfo(2)."""

        def hidden() -> tuple[float, float, float]:
            raise OSError("Load averages are unobtainable")

        self.assertEqual(os.getloadavg()[0], machine.load())
        self.patch(os, "getloadavg", hidden)
        found = machine.load()
        assert found is not None
        self.assertTrue(0.0 <= found < 10_000.0, found)


class MemoryTests(SynchronousTestCase):
    def test_available(self) -> None:
        """The result is MemAvailable in bytes; None if the file or the line is missing."""
        path = Path(self.mktemp())
        self.assertIsNone(machine.available_memory(path))
        path.write_text("MemTotal: 2048 kB\nMemAvailable:    1024 kB\n")
        self.assertEqual(1 << 20, machine.available_memory(path))
        path.write_text("MemTotal: 2048 kB\nMemAvailable: much\n")
        self.assertIsNone(machine.available_memory(path))


class PowerTests(SynchronousTestCase):
    def power(self, **supplies: dict[str, str]) -> Path:
        """Return a directory like /sys/class/power_supply."""
        root = Path(self.mktemp())
        for name, facts in supplies.items():
            (root / name).mkdir(parents=True)
            for fact, word in facts.items():
                (root / name / fact).write_text(f"{word}\n")
        return root

    def test_laptop(self) -> None:
        """A laptop is on battery while its battery is discharged and its mains supply is off."""
        for online, status, expected in (
            ("0", "Discharging", True),
            ("1", "Discharging", False),
            ("0", "Full", False),
            ("1", "Charging", False),
        ):
            power = self.power(
                AC={"type": "Mains", "online": online}, BAT0={"type": "Battery", "status": status}
            )
            self.assertEqual(expected, machine.is_on_battery(power), (online, status))

    def test_others(self) -> None:
        """A server has no supplies; the battery of a mouse is not one of the machine."""
        self.assertFalse(machine.is_on_battery(Path(self.mktemp())))
        mouse = {"type": "Battery", "status": "Discharging", "scope": "Device"}
        self.assertFalse(machine.is_on_battery(self.power(mouse=mouse)))
        self.assertTrue(
            machine.is_on_battery(self.power(BAT0={"type": "Battery", "status": "Discharging"}))
        )
