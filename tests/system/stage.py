"""The base of the system tests: origins, caches on them and daemons over them.

No daemon may print a traceback in any test: each one's log is looked through when it ends.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.bench import is_kept, remove_tree
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.system.caches import StorePath, SyntheticCache
from tests.system.faults import Fault
from tests.system.origin import Origin
from tests.system.wire import Answer, Exchange, ask
from tests.waiting import wait_until

T = TypeVar("T")

ALARMS = ("Traceback", "Unhandled", "internal error", "ResourceWarning", "never awaited")

#: Short timeouts, so that tests do not wait long. There is no prefetch: the requests of clients
#: must meet the faults.
QUICK = (
    *("--cache-prefetch", "off"),
    *("--cache-upstream-dialer-timeout", "1s"),
    *("--cache-upstream-response-header-timeout", "1s"),
    *("--cache-upstream-nar-timeout", "1s"),
    *("--cache-upstream-idle-timeout", "500ms"),
    *("--cache-download-resume-timeout", "500ms"),
    *("--server-drain-timeout", "5s"),
    "--prometheus-enabled",
)


def log_lines(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the daemon's log. Raises AssertionError if a line is not a JSON object."""
    found = []
    for line in daemon.log.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise AssertionError(f"not a line of JSON in the log: {line!r}") from error
    return found


def requests(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the log's lines about requests."""
    return [line for line in log_lines(daemon) if "duration_ms" in line]


class Stage(SynchronousTestCase):
    """A test case with origins, caches and daemons."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ncps-system-"))
        if is_kept():
            print(f"\n{self.id()}: {self.directory}")
        else:
            self.addCleanup(remove_tree, self.directory)
        self.cache = SyntheticCache()
        self._made = 0

    def origin(self) -> Origin:
        """Return a started origin."""
        origin = Origin()
        origin.start()
        self.addCleanup(origin.stop)
        return origin

    def mounted(self, *nar_faults: Fault) -> Origin:
        """Return a started origin with the cache on it."""
        origin = self.origin()
        self.cache.mount(origin, "", *nar_faults)
        return origin

    def make_daemon(
        self,
        *upstreams: Origin | str,
        options: Sequence[str] = (),
        directory: Path | None = None,
        key: str | None = None,
    ) -> Daemon:
        """Return a daemon over these upstreams that is not started.

        :param upstreams: asked in this order.
        """
        caches = []
        for priority, upstream in enumerate(upstreams, 1):
            url = upstream.url if isinstance(upstream, Origin) else upstream
            joint = "&" if "?" in url else "?"
            name = f"{url}{joint}priority={priority * 10}"
            caches.append(UpstreamCache(name, key or self.cache.key.public))
        self._made += 1
        where = directory or self.directory / f"ncps{self._made}"
        daemon = Daemon(where, caches, options=(*QUICK, *options))
        daemon.is_forked = True
        self.addCleanup(self.check_log, daemon)
        self.addCleanup(daemon.kill)
        return daemon

    def daemon(self, *upstreams: Origin | str, options: Sequence[str] = ()) -> Daemon:
        """Return a started daemon over these upstreams."""
        daemon = self.make_daemon(*upstreams, options=options)
        daemon.start()
        return daemon

    def check_log(self, daemon: Daemon) -> None:
        """Check that the log has no unexpected error."""
        bad = [line for line in daemon.log.splitlines() if any(map(line.__contains__, ALARMS))]
        self.assertEqual([], bad)

    # Requests

    def ask(self, daemon: Daemon, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Send a request to a daemon; underscores in header names stand for dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(daemon.port, path, method=method, headers=given)

    def metric(self, daemon: Daemon, series: str) -> float:
        """Read a series by its name and labels as in `/metrics`."""
        text = self.ask(daemon, "/metrics").body.decode()
        (line,) = (line for line in text.splitlines() if line.startswith(f"{series} "))
        return float(line.rpartition(" ")[2])

    def narinfo(self, daemon: Daemon, path: StorePath) -> Answer:
        """Ask for a path's narinfo."""
        return self.ask(daemon, f"/{path.digest}.narinfo")

    def nar_target(self, daemon: Daemon, path: StorePath) -> str:
        """Return the target that a served narinfo names."""
        answer = self.narinfo(daemon, path)
        self.assertEqual(200, answer.status, answer.body)
        return "/" + answer.fields["URL"]

    def nar(self, daemon: Daemon, path: StorePath, **headers: str) -> Answer:
        """Ask for a path's narinfo, then for the NAR it names."""
        return self.ask(daemon, self.nar_target(daemon, path), **headers)

    def exchange(self, daemon: Daemon, target: str, **headers: str) -> Exchange:
        """Send a request and return when the head has come."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        exchange = Exchange(daemon.port, target, headers=given)
        self.addCleanup(exchange.close)
        return exchange

    def at_once(self, *calls: Callable[[], T]) -> list[T]:
        """Make calls at the same time, each in a thread; return their results in order."""
        with ThreadPoolExecutor(len(calls)) as threads:
            return [future.result() for future in [threads.submit(call) for call in calls]]

    def in_background(self, call: Callable[[], T]) -> Future[T]:
        """Start a call in a thread; the test asks for its result."""
        threads = ThreadPoolExecutor(1)
        self.addCleanup(threads.shutdown)
        return threads.submit(call)

    # Checks

    def assert_served(self, daemon: Daemon, path: StorePath) -> Answer:
        """Check that a path's NAR arrives complete and right."""
        answer = self.nar(daemon, path)
        self.assertEqual((200, True), (answer.status, answer.whole))
        self.assertEqual(path.file, answer.body)
        return answer

    def wait_for_log(self, daemon: Daemon, *words: str) -> None:
        """Wait until one line of the daemon's log has all of these words."""
        wait_until(
            lambda: any(all(w in line for w in words) for line in daemon.log.splitlines()),
            f"a log line with {words}",
            daemon=daemon,
        )

    def spools(self, daemon: Daemon) -> list[Path]:
        """Return the files of running transfers, except small ones, which are in memory."""
        return [path for path in (daemon.directory / "tmp").rglob("spool-*") if path.is_file()]

    def unfinished(self, daemon: Daemon) -> list[Path]:
        """Return unfinished files: spools, and small files that are being written."""
        temps = (daemon.storage / "store" / "tmp").rglob("temp-*")
        return [*self.spools(daemon), *(path for path in temps if path.is_file())]

    def wait_until_stored(self, daemon: Daemon, *paths: StorePath) -> None:
        """Wait until the NARs of these paths are hits."""
        for path in paths:
            target = self.nar_target(daemon, path)
            name = target.rpartition("/")[2]
            # A request would start a download if there is none, so it comes last.
            wait_until(
                lambda: (
                    name in [file.name for file in daemon.stored_nars()]  # noqa: B023
                    and self.ask(daemon, target, method="HEAD").outcome == "hit"  # noqa: B023
                ),
                f"{target} to be stored",
                daemon=daemon,
            )
