"""systemd's own tools check the files in `deploy/`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.services import require

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ANALYZE = shutil.which("systemd-analyze")
MOST = "15"
"""The highest allowed exposure of a unit, in tenths."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    require(ANALYZE, "systemd-analyze")
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


class DeployTests(SynchronousTestCase):
    def test_the_service_is_exposed_to_little(self) -> None:
        """By systemd's own measure the exposure is at most 1.5."""
        unit = DEPLOY / "ncps.service"
        done = analyze("security", "--offline=yes", f"--threshold={MOST}", "--no-pager", unit)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("Overall exposure level for ncps.service: 1.", done.stdout)

    def test_the_units_are_without_mistakes(self) -> None:
        """No directive is unknown, misspelt or in the wrong section."""
        place = Path(tempfile.mkdtemp(prefix="ncps-deploy-"))
        self.addCleanup(shutil.rmtree, place)
        text = (DEPLOY / "ncps.service").read_text()
        (place / "ncps.service").write_text(text.replace("/opt/ncps/bin/ncps", "/bin/true"))
        shutil.copy(DEPLOY / "ncps.socket", place)
        done = analyze("verify", place / "ncps.service", place / "ncps.socket")
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))

    def test_wrong_settings_are_not_tried_again(self) -> None:
        """Exit code 2 means wrong settings, and the reload signal is SIGHUP."""
        lines = (DEPLOY / "ncps.service").read_text().splitlines()
        for line in (
            "Type=notify",
            "RestartPreventExitStatus=2",
            "Restart=on-failure",
            "ExecReload=/bin/kill -HUP $MAINPID",
        ):
            self.assertIn(line, lines)

    def test_callbacks_of_openssl_may_be_made(self) -> None:
        """The unit has no MemoryDenyWriteExecute=, with which no https upstream works."""
        self.assertNotIn("MemoryDenyWriteExecute", settings_in(DEPLOY / "ncps.service"))


def settings_in(unit: Path) -> dict[str, str]:
    """Return the last value of each directive of a unit."""
    lines = [line for line in unit.read_text().splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
