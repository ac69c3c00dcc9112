"""What the storms have found, each thing alone."""

from __future__ import annotations

from tests.system.caches import Dialect
from tests.system.faults import Status
from tests.system.stage import Stage


class FindingTests(Stage):
    """Faults that took a storm to be seen."""

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

    def test_lost_nar_without_upstream_hash_comes_from_elsewhere(self) -> None:
        """A NAR lost from the store is fetched from another upstream that names no FileHash."""
        path = self.cache.add(5000, compression="zstd", dialect=Dialect.BARE)
        first, second = self.mounted(), self.mounted()
        daemon = self.daemon(first, second)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        [stored] = daemon.stored_nars()
        stored.unlink()
        self.cache.mount_path(first, path, "", Status(404))
        self.assert_served(daemon, path)
