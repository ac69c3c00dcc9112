"""debuginfod-find and gdb of Debian find symbols through a daemon."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests import elf
from tests.e2e.daemon import Daemon
from tests.nars import Tree, archive
from tests.services import require
from tests.system.stage import Stage
from tests.system.uploader import ALLOWED, UploadStage
from tests.unit.cache.extras.rig import packed
from tests.waiting import wait_until

BUILD_ID = "0123456789abcdef" * 2 + "01234567"
FUNCTION = "only_the_cache_knows_this_name"
SYMBOLS = elf.symbols(BUILD_ID, FUNCTION)
TREE: Tree = {
    b"lib": {
        b"debug": {
            b".build-id": {BUILD_ID[:2].encode(): {BUILD_ID[2:].encode() + b".debug": SYMBOLS}}
        }
    }
}


class DebugStage(Stage):
    """Runs programs that look for symbols, without symbols of this machine."""

    def environment(self, daemon: Daemon) -> Mapping[str, str]:
        found = self.directory / f"found-{daemon.port}"
        return {
            "DEBUGINFOD_URLS": daemon.url,
            "DEBUGINFOD_CACHE_PATH": str(found),
            "HOME": str(self.directory),
        }

    def command(self, name: str, package: str) -> str:
        program = shutil.which(name)
        require(program, f"{name} (the package {package})")
        assert program is not None
        return program

    def find(self, daemon: Daemon, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run debuginfod-find."""
        program = self.command("debuginfod-find", "debuginfod")
        environment = self.environment(daemon)
        return subprocess.run(
            [program, *words], env=environment, capture_output=True, timeout=60, check=False
        )

    def look_up(self, daemon: Daemon) -> str:
        """Ask gdb for the place of a function in a program without symbols."""
        program = self.directory / "program"
        program.write_bytes(elf.program(BUILD_ID))
        done = subprocess.run(
            [
                *(self.command("gdb", "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled on"),
                *("-ex", f"info address {FUNCTION}", str(program)),
            ],
            env=self.environment(daemon),
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
        return done.stdout + done.stderr

    def check_found(self, daemon: Daemon) -> None:
        """Check that both programs get the symbols."""
        done = self.find(daemon, "debuginfo", BUILD_ID)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(SYMBOLS, Path(done.stdout.decode().strip()).read_bytes())
        self.assertIn(f'"{FUNCTION}" is at {elf.ADDRESS + 0x1000:#x}', self.look_up(daemon))


class FetchedTests(DebugStage):
    def test_symbols_of_a_nar_that_was_fetched(self) -> None:
        """The upstream has no link to them; after the NAR was fetched, it may be away."""
        path = self.cache.add(nar=archive(TREE), compression="zstd")
        origin = self.mounted()
        daemon = self.daemon(origin)
        self.assertIn(f'No symbol "{FUNCTION}"', self.look_up(daemon))
        self.assert_served(daemon, path)
        link = f"/upload/debuginfo/{BUILD_ID}"
        wait_until(lambda: self.ask(daemon, link).status == 200, "the link", daemon=daemon)
        origin.stop()
        shutil.rmtree(self.environment(daemon)["DEBUGINFOD_CACHE_PATH"])  # it remembers absences
        self.check_found(daemon)

    def test_absent_objects(self) -> None:
        """Other build IDs, programs and sources are 404 and no errors of the server."""
        path = self.cache.add(nar=archive(TREE))
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, path)
        for words in (
            ("debuginfo", "0" * 40),
            ("executable", BUILD_ID),
            ("source", BUILD_ID, "/build/x.c"),
        ):
            done = self.find(daemon, *words)
            self.assertEqual((1, b""), (done.returncode, done.stdout), words)
            self.assertIn(b"No such file", done.stderr)


class UploadedTests(DebugStage, UploadStage):
    def test_symbols_of_an_upload(self) -> None:
        """A client has uploaded the path, by any name, and no link."""
        daemon, one = self.daemon("http://127.0.0.1:9", options=(ALLOWED,)), packed(TREE)
        self.assertEqual(201, self.put_nar(daemon, one)[0])
        self.assertEqual(201, self.put_narinfo(daemon, one)[0])
        link = f"/upload/debuginfo/{BUILD_ID}"
        wait_until(lambda: self.ask(daemon, link).status == 200, "the link", daemon=daemon)
        self.check_found(daemon)
