from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from ncps.commandline.completion import SCRIPTS
from ncps.commandline.words import COMMANDS
from ncps.settings.setting import Status
from ncps.settings.table import TABLE
from tests.services import require

DEADLINE_S: Final = 60.0
SHOWN: Final = [each.name for each in COMMANDS if not each.is_former]
SETTINGS: Final = [f"--{row.flag}" for row in TABLE if row.status is Status.ACTIVE]

#: Command lines that a user begins, the last word unfinished, and the words that must be offered.
LINES: Final[tuple[tuple[list[str], list[str]], ...]] = (
    ([""], SHOWN),
    (["re"], ["rebuild"]),
    (["--log-level", "info", "re"], ["rebuild"]),
    (["migrate", ""], ["up", "status"]),
    (["migrate", "up", "--dry"], ["--dry-run"]),
    (["serve", "--cache-hostn"], ["--cache-hostname"]),
    (["s", "--cache-hostn"], ["--cache-hostname"]),
    (["--cache-lock-b"], ["--cache-lock-backend"]),
    (["completion", ""], ["bash", "fish", "zsh"]),
    (["help", "mig"], ["migrate"]),
    (["nar", "recompress", "--thr"], ["--threads"]),
    (["nar", "recompress", "--level", "3", "a-fi"], ["a-file"]),
    (["nar", "recompress", "--output", "a-fi"], ["a-file"]),
    (["serve", "--cluster-secret-file", "a-fi"], ["a-file"]),
    (["version", "--cache"], []),
)

BASH: Final = """
source "$1"; shift
COMP_WORDS=(ncps "$@"); COMP_CWORD=$#; _ncps; printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH: Final = 'source $argv[1]; complete -C "ncps $argv[2]"'
ZSH: Final = """
compdef() { :; }
_files() { print -rl -- a-file; }
_describe() {
    [[ $1 == -o ]] && shift
    local offered
    for offered in "${(@P)2}"; do
        offered=${offered%%:*}
        [[ $offered == $words[CURRENT]* ]] && print -r -- $offered
    done
}
source "$1"; shift
words=(ncps "$@"); CURRENT=$#words; _ncps; true
"""


class CompletionTests(SynchronousTestCase):
    """Each shell itself completes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "a-file").touch()

    def offered(self, shell: str, code: str, *words: str) -> list[str]:
        require(shutil.which(shell), shell)
        script = (self.directory / "script").absolute()
        script.write_text(SCRIPTS[shell]())
        option = ["--no-config"] if shell == "fish" else []
        last = [shell] if shell != "fish" else []
        done = subprocess.run(
            [shutil.which(shell) or shell, *option, "-c", code, *last, str(script), *words],
            cwd=self.directory,
            env={"HOME": str(self.directory), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
        self.assertEqual("", done.stderr)
        return [line.partition("\t")[0] for line in done.stdout.splitlines() if line]

    def test_bash(self) -> None:
        """Commands, flags, choices and files."""
        for words, expected in LINES:
            self.assertEqual(sorted(expected), sorted(self.offered("bash", BASH, *words)), words)
        self.assertEqual(["rebuild"], self.offered("bash", BASH, "--log-level", "=", "info", "re"))

    def test_zsh(self) -> None:
        """The same, with help."""
        for words, expected in LINES:
            self.assertEqual(sorted(expected), sorted(self.offered("zsh", ZSH, *words)), words)

    def test_fish(self) -> None:
        """The same, with help."""
        for words, expected in LINES:
            found = self.offered("fish", FISH, " ".join(words))
            self.assertEqual(sorted(expected), sorted(found), words)

    def test_every_setting_is_there(self) -> None:
        """Each script has all settings, and none of the Go program only."""
        for shell, make in SCRIPTS.items():
            script = make()
            dashes = "-l " if shell == "fish" else "--"
            for flag in SETTINGS:
                self.assertIn(f"{dashes}{flag.removeprefix('--')}", script)
            self.assertNotIn("migrate-narinfo", script)
