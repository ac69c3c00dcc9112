"""The quarantine stays within its limits, even if an upstream often sends wrong NARs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.system.origin import Origin
from tests.system.test_eviction import Sized
from tests.waiting import wait_until

LIES = 6


class QuarantineTests(Sized):
    """An upstream whose xz files have the right hash and other NARs inside."""

    def liar(self) -> Origin:
        """Return an origin of wrong NARs, and put their paths into `self.wrong`."""
        origin = self.origin()
        self.wrong = []
        for number in range(LIES):
            other, path = self.cache.add(20_000 + number), self.cache.add(20_000)
            fields = dict(other.fields())
            origin.serve(other.nar_target, other.file)
            narinfo = path.narinfo(
                URL=other.url, FileHash=fields["FileHash"], FileSize=fields["FileSize"]
            )
            origin.serve(f"/{path.digest}.narinfo", narinfo)
            self.wrong.append(path)
        return origin

    def lied_to(self, options: Sequence[str]) -> Daemon:
        """Return a daemon that has stored all of them and is inspecting them."""
        blind = ("--cache-verify-while-arriving=false", "--cache-verify-rate", "0")
        daemon = self.daemon(self.liar(), options=blind)
        for path in self.wrong:
            self.assertEqual(200, self.nar(daemon, path).status)
        wait_until(lambda: len(daemon.stored_nars()) == LIES, "all are stored", daemon=daemon)
        daemon.stop()
        daemon.options = (*daemon.options, "--cache-verify-rate", "8M", *options)
        daemon.start()
        return daemon

    def set_aside(self, daemon: Daemon) -> list[Path]:
        return [file for file in self.directory_of(daemon).iterdir() if file.name != "README"]

    def directory_of(self, daemon: Daemon) -> Path:
        return daemon.storage / "store" / "quarantine"

    def discarded(self, daemon: Daemon, bound: str) -> float:
        return self.metric(daemon, f'ncps_quarantine_discarded_total{{bound="{bound}"}}')

    def wait_for_discards(self, daemon: Daemon, bound: str, count: int) -> None:
        wait_until(
            lambda: self.discarded(daemon, bound) == count, f"{count} to be gone", daemon=daemon
        )

    def test_wrong_files_are_kept_within_the_count(self) -> None:
        """Further files are deleted; counters, gauges and the log say so; other files stay."""
        daemon = self.lied_to(("--cache-quarantine-max-count", "2"))
        (self.directory_of(daemon) / "README").write_text("for whom it may concern")
        self.wait_for_discards(daemon, "count", LIES - 2)
        self.assertEqual([], daemon.stored_nars())
        self.assertEqual(2, len(self.set_aside(daemon)))
        self.assertEqual(LIES, self.metric(daemon, "ncps_quarantine_set_aside_total"))
        wait_until(
            lambda: self.metric(daemon, "ncps_quarantine_files") == 2, "the gauge", daemon=daemon
        )
        size = sum(file.stat().st_size for file in self.set_aside(daemon))
        self.assertEqual(size, self.metric(daemon, "ncps_quarantine_size_bytes"))
        self.wait_for_log(daemon, "from the quarantine to keep its limits")
        self.assertTrue((self.directory_of(daemon) / "README").exists())

    def test_without_a_quarantine_wrong_files_are_deleted(self) -> None:
        """They are deleted immediately, each with a line that names the setting."""
        daemon = self.lied_to(("--cache-quarantine-max-size", "0"))
        self.wait_for_discards(daemon, "size", LIES)
        self.assertEqual(([], []), (daemon.stored_nars(), self.set_aside(daemon)))
        self.wait_for_log(daemon, "deleted instead of set aside", "cache-quarantine-max-size")

    def test_too_old_files_go_at_the_start(self) -> None:
        """A start deletes files that are too old."""
        daemon = self.lied_to(())
        wait_until(lambda: len(self.set_aside(daemon)) == LIES, "all aside", daemon=daemon)
        daemon.kill()
        daemon.options = (*daemon.options, "--cache-quarantine-max-age", "1ms")
        daemon.start()
        self.wait_for_discards(daemon, "age", LIES)
        self.assertEqual([], self.set_aside(daemon))
