"""What a process leaves behind that was killed at a bad moment."""

from __future__ import annotations

from tests.system.stage import Stage


class LeftoverTests(Stage):
    """Nothing piles up over crashes."""

    def test_unfinished_files_of_dead_processes_are_swept(self) -> None:
        """Unfinished files go at the next start, wherever they lie; those of strangers stay."""
        daemon = self.daemon(self.origin().url)
        daemon.stop()
        places = (daemon.directory / "tmp", daemon.storage / "store" / "tmp")
        for place in places:
            for name in ("spool-99-0123456789abcdef", "temp-99-0123456789abcdef", "strange"):
                (place / name).write_bytes(b"left behind")
        daemon.start()
        left = [[path.name for path in place.iterdir()] for place in places]
        self.assertEqual([["strange"], ["strange"]], left)
