"""Upstreams with unusual but valid answers, from which NARs must arrive."""

from __future__ import annotations

from tests.system.caches import StorePath
from tests.system.faults import Delay, Fault, NoLength, Raw, Status
from tests.system.origin import Origin
from tests.system.stage import Stage
from tests.waiting import wait_until

SIZE = 200_000
LATE_S = 3.0
OPTIONS = ("--cache-upstream-nar-timeout", "20s")
"""Each request has 2 s in total; see `stage.QUICK`."""


class MannersTests(Stage):
    def put(self, origin: Origin, path: StorePath, *nar_faults: Fault, kind: str = "") -> None:
        """Put a NAR onto an origin; its narinfo has no facts of the file."""
        text = path.narinfo(FileHash=None, FileSize=None)
        origin.serve(f"/{path.digest}.narinfo", text, *nar_faults[1:])
        headers = [("Content-Type", kind or "application/x-nix-nar")]
        origin.serve(path.nar_target, path.file, *nar_faults, headers=headers)

    def test_what_is_there_is_served(self) -> None:
        """A single upstream without length or HEAD, with another type, late, many headers."""
        closing, late, typed, flooding = [self.cache.add(SIZE) for _ in range(4)]
        origin = self.mounted()
        origin.serve("/nix-cache-info", self.cache.info(), NoLength())
        self.put(origin, closing, NoLength(), NoLength())
        self.put(origin, late, Delay(LATE_S))
        origin.serve(
            typed.nar_target,
            typed.file,
            headers=[("Content-Type", "text/html")],
            plan=lambda request: [Status(403)] if request.method == "HEAD" else [],
        )
        head = b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 600
        origin.serve(f"/{flooding.digest}.narinfo", b"", Raw(head))
        daemon = self.daemon(origin, options=OPTIONS)

        target = self.nar_target(daemon, typed)
        self.assertEqual(200, self.ask(daemon, target, method="HEAD").status)
        for path in (closing, late, typed):
            self.assert_served(daemon, path)
        for path in (closing, late, typed):
            self.assertEqual(1 + (path is typed), origin.gets(path.nar_target), path.base_name)
            self.wait_until_stored(daemon, path)
        self.assertEqual(503, self.narinfo(daemon, flooding).status)
        wait_until(lambda: "longer than 65536 bytes" in daemon.log, "a reason", daemon=daemon)
