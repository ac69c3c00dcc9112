"""A whole cache core on fakes, and its clients."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.admission import Admission
from ncps.aio.growing import Digest, Estimated
from ncps.aio.small_spool import Budget, SmallSpool
from ncps.aio.spool import Spool
from ncps.aio.tasks import Tasks
from ncps.aio.threads import Threads
from ncps.cache.ahead.rules import NOTHING_AHEAD, AheadRules
from ncps.cache.answers import ServedNar
from ncps.cache.cluster import Cluster
from ncps.cache.core import Core, Rules, state_of
from ncps.cache.nar.downloads import DownloadRules
from ncps.cache.nar.quarantine import QuarantineBounds
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.nix.judge import Judge, Look
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.settings.schema.cache import DownloadSettings
from ncps.settings.schema.upstream import UpstreamsSettings
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.client import Client
from tests.fakes.leases import MemoryLeases, MemoryNotices
from tests.fakes.metrics import series
from tests.fakes.peers import ScriptedPeers
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY, Sample
from tests.fakes.spoolfile import CountedFile
from tests.fakes.stores import MemoryNarInfoStore, MemoryNarStore
from tests.fakes.threads import InlineThreads
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.world import fake_world

T = TypeVar("T")

PATIENCE_S = 60.0


class CoreCase(SynchronousTestCase):
    """`setUp` makes a core with two upstreams, of which the first is `origin`."""

    priorities: tuple[int, ...] = (10, 20)
    inner_look = Look.ALWAYS
    """Whether the NAR inside a file is hashed while the file arrives."""
    small_size = 0
    """Bytes of NARs that are fetched into memory, at most."""
    ahead: AheadRules = NOTHING_AHEAD
    new_clock: Callable[[], Clock] = Clock

    def setUp(self) -> None:
        self.clock = self.new_clock()
        self.clock.advance(1_750_000_000)
        self.tasks = Tasks(self.clock)
        self.catalog = MemoryCatalog()
        self.store = MemoryNarStore()
        self.sidecars = MemoryNarInfoStore()
        self.leases = MemoryLeases("here")
        self.peers = ScriptedPeers()
        self.notices = MemoryNotices()
        self.threads: Threads = InlineThreads()
        self.scripted = [
            ScriptedUpstream(f"{chr(97 + n)}.example.org", priority)
            for n, priority in enumerate(self.priorities)
        ]
        self.origin, self.mirror = self.scripted[:2]
        self.files: list[CountedFile] = []
        self.is_full = False
        self.free = 10**12
        self.most_downloads, self.most_spooled = 100, 10**12
        self.largest = 0
        self.metrics = Metrics()
        self.vetting = NarInfoVerifier(
            trusted=(UPSTREAM_KEY.public,), own=OWN_KEY, name=OWN_KEY.name
        )
        self.restart()

    def restart(self) -> None:
        """Make the core again, as after a restart, with an empty memory."""
        self.admission = Admission(
            self.clock,
            limits=DownloadSettings(
                max_count=self.most_downloads,
                max_spool_size_bytes=self.most_spooled,
                queue_timeout_s=PATIENCE_S,
                small_size_bytes=self.small_size,
            ),
            spare=lambda: self.free - 1000,
            largest=self.largest,
            new_spool=self.new_spool,
            reached=lambda limit: self.metrics.limit_reached(limit).inc(),
        )
        self.budget = Budget(1 << 24)
        self.admission.small = self.new_small
        self.world = fake_world(
            self.clock,
            self.tasks,
            self.scripted,
            threads=self.threads,
            catalog=self.catalog,
            nars=self.store,
            narinfos=self.sidecars,
            cluster=Cluster(
                leases=self.leases,
                patience_s=PATIENCE_S,
                pace=UpstreamsSettings(),
                peers=self.peers,
                address="here",
            ),
            notices=self.notices,
            admission=self.admission,
            metrics=self.metrics,
        )
        state = state_of(self.world, memory_size=1_000_000, negative_ttl_s=30, negative_entries=100)
        rules = Rules(
            quarantine=QuarantineBounds(count=100, size=10**9, age_s=86400.0),
            downloads=DownloadRules(
                patience_s=PATIENCE_S, new_judge=partial(Judge, look=self.inner_look)
            ),
            ahead=self.ahead,
        )
        self.core = Core(self.world, state, vetting=self.vetting, rules=rules)
        self.core.publication.beat.pause_s = 0
        self.upstreams = self.world.upstreams
        self.negatives, self.memory = state.negatives, state.memory
        self.uses, self.board = state.uses, state.board
        self.narinfos, self.nars = self.core.narinfos, self.core.nars
        self.quarantine, self.adoption = self.core.quarantine, self.core.adoption
        self.healing, self.verifier = self.core.healing, self.core.verifier

    @property
    def reached(self) -> dict[str, float]:
        """Limits that were reached, by the name of their setting."""
        return series(self.metrics.limit_reached)

    @property
    def ended(self) -> dict[str, float]:
        """Downloads that have ended, by outcome."""
        return series(self.metrics.downloads)

    @property
    def verified(self) -> dict[str, float]:
        """Stored NARs that were read once more, by result."""
        return series(self.metrics.inspections)

    def new_spool(self, total: int | None, digests: tuple[Digest, ...], why: str) -> Spool:
        why = "disk full" if self.is_full else why
        file = None if why else self._new_file
        return Spool(file=file, workers=self.threads, digests=digests, total=total, keep_error=why)

    def new_small(self, size: int, digests: tuple[Estimated, ...]) -> SmallSpool | None:
        if size > self.small_size or not self.budget.take(size):
            return None
        return SmallSpool(
            self.clock,
            workers=self.threads,
            digests=digests,
            total=size,
            budget=self.budget,
        )

    def _new_file(self) -> CountedFile:
        self.files.append(CountedFile())
        return self.files[-1]

    def tearDown(self) -> None:
        stopping = self.start(self.tasks.stop(0))
        self.clock.advance(0)
        self.clock.advance(10)
        self.successResultOf(stopping)
        self.assertEqual([], self.tasks.names, "left running")
        self.assertEqual(1 << 24, self.budget.left, "memory")
        self.assertEqual([1] * len(self.files), [file.closed for file in self.files], "closed")
        self.assertEqual([], [file.path for file in self.files if file.path.exists()], "left over")
        lines = [*self.scripted, self.peers.line]
        self.assertEqual(0, sum(upstream.bodies for upstream in lines), "bodies open")
        self.assertEqual({}, self.leases.held, "leases held")
        self.assertEqual((0, 0), (self.admission.running, self.admission.in_flight), "admitted")
        self.assertEqual([], [body for body in self.store.bodies if not body.is_closed], "open")
        self.assertEqual([], self.clock.getDelayedCalls(), "timers left")

    # Asking

    def start(self, coro: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coro)

    def get(self, coro: Coroutine[Deferred[Any], Any, T]) -> T:
        value: T = self.successResultOf(self.start(coro))
        return value

    def refused(self, coro: Coroutine[Deferred[Any], Any, Any], kind: type[Exception]) -> Any:
        return self.failureResultOf(self.start(coro), kind).value

    def learn(self, *samples: Sample) -> None:
        """Let the core know these narinfos, as if clients had asked for them first."""
        for sample in samples:
            self.get(self.narinfos.get(sample.digest))

    async def _reading(
        self, key: NarKey, start: int, stop: int | None, *, hold: bool
    ) -> tuple[ServedNar, Client]:
        nar = await self.nars.open(key)
        return nar, Client(await nar.body(start, stop), hold=hold)

    def open(
        self, key: NarKey, start: int = 0, stop: int | None = None, *, hold: bool = False
    ) -> Deferred[tuple[ServedNar, Client]]:
        """Open a NAR as the web layer does."""
        return self.start(self._reading(key, start, stop, hold=hold))

    def client(self, key: NarKey, start: int = 0, stop: int | None = None) -> Client:
        """Return a reader for a client that has its head already."""
        _, client = self.successResultOf(self.open(key, start, stop))
        return client

    def download(self, key: NarKey) -> bytes:
        """Fetch a NAR in one go."""
        client = self.client(key)
        self.successResultOf(client.done)
        return client.data
