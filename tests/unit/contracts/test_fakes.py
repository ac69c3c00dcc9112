"""The fakes keep the contracts of their ports."""

from datetime import timedelta
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Unavailable
from ncps.ports import KnownReplica, Replica
from tests.contract.catalog import CatalogContract
from tests.contract.closures import (
    ClosuresContract,
    PathGraphContract,
    PinsContract,
    RemovalsContract,
)
from tests.contract.config_store import ConfigStoreContract
from tests.contract.documents import DocumentsContract
from tests.contract.extra_store import ExtraStoreContract
from tests.contract.leases import SharedLeasesContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.notices import NoticesContract
from tests.contract.realisations import RealisationsContract, RealisationStoreContract
from tests.contract.replicas import ReplicasContract
from tests.contract.running import Contract, start, synchronously
from tests.contract.samples import digest_of, key_of
from tests.contract.tokens import TokensContract
from tests.contract.transcoder import TranscoderContract
from tests.contract.twins import TwinsContract
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.closures import MemoryPathGraph, MemoryPins, MemoryRemovals
from tests.fakes.documents import FakeDocuments
from tests.fakes.leases import MemoryLeases, MemoryNotices
from tests.fakes.realisations import MemoryRealisations, MemoryRealisationStore
from tests.fakes.replicas import MemoryReplicas
from tests.fakes.stores import (
    MemoryConfigStore,
    MemoryExtraStore,
    MemoryNarInfoStore,
    MemoryNarStore,
)
from tests.fakes.tokens import MemoryTokens
from tests.fakes.twins import InstantTranscoder, MemoryTwins


@synchronously
class MemoryNarStoreTests(NarStoreContract, SynchronousTestCase):
    store: MemoryNarStore
    reopens = True

    def setUp(self) -> None:
        self.store = MemoryNarStore()
        self.sources = Path(self.mktemp())

    def test_it_fails_when_told(self) -> None:
        """The store raises an error that the test has set."""
        self.store.failing = Unavailable("told so")
        self.failureResultOf(self.store.stat(key_of(1)), Unavailable)


@synchronously
class MemoryNarInfoStoreTests(NarInfoStoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryNarInfoStore()


@synchronously
class MemoryExtraStoreTests(ExtraStoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryExtraStore()


@synchronously
class MemoryRealisationStoreTests(RealisationStoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryRealisationStore()


@synchronously
class MemoryRealisationsTests(RealisationsContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.realisations = MemoryRealisations()


@synchronously
class MemoryConfigStoreTests(ConfigStoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryConfigStore()


@synchronously
class MemoryCatalogTests(CatalogContract, SynchronousTestCase):
    catalog: MemoryCatalog

    def setUp(self) -> None:
        self.catalog = MemoryCatalog()

    def test_it_fails_when_told(self) -> None:
        """Errors that were set come out of writes, or of everything."""
        self.catalog.failing_writes = Unavailable("told so")
        self.failureResultOf(self.catalog.forget_narinfo(digest_of(1)), Unavailable)
        self.assertIsNone(self.successResultOf(self.catalog.nar(key_of(1))))
        self.catalog.failing = Unavailable("told so")
        self.failureResultOf(self.catalog.nar(key_of(1)), Unavailable)


@synchronously
class MemoryReplicasTests(ReplicasContract, SynchronousTestCase):
    replicas: MemoryReplicas

    def setUp(self) -> None:
        self.replicas = MemoryReplicas()

    def age(self, replica: Replica, seconds: float) -> None:
        seen = self.replicas.rows[replica.id]
        self.replicas.rows[replica.id] = KnownReplica(
            seen.replica, seen.at - timedelta(seconds=seconds)
        )

    def test_it_fails_when_told(self) -> None:
        """Errors that were set come out of writes, or of everything."""
        self.replicas.failing_writes = Unavailable("told so")
        self.failureResultOf(self.replicas.withdraw("x"), Unavailable)
        self.assertIsNone(self.successResultOf(self.replicas.roll()).key)
        self.replicas.failing = Unavailable("told so")
        self.failureResultOf(self.replicas.roll(), Unavailable)


@synchronously
class MemoryTokensTests(TokensContract, SynchronousTestCase):
    tokens: MemoryTokens

    def setUp(self) -> None:
        self.tokens = MemoryTokens()

    def test_it_fails_when_told(self) -> None:
        """Errors that were set come out of writes, or of everything."""
        self.tokens.failing_writes = Unavailable("told so")
        self.failureResultOf(start(self.tokens.revoke("x")), Unavailable)
        self.assertEqual(0, self.successResultOf(start(self.tokens.version())))
        self.tokens.failing = Unavailable("told so")
        self.failureResultOf(start(self.tokens.table()), Unavailable)


@synchronously
class MemoryLeasesTests(SharedLeasesContract, SynchronousTestCase):
    leases: MemoryLeases

    def setUp(self) -> None:
        super().setUp()
        self.leases = MemoryLeases(self.address)
        self.other = MemoryLeases(self.other_address, beside=self.leases)

    def test_a_lease_can_be_lost(self) -> None:
        """A test can make a lease lost."""
        lease = self.successResultOf(self.leases.try_hold("a"))
        self.leases.held["a"].lost = True
        self.assertTrue(lease.is_lost)


@synchronously
class MemoryNoticesTests(NoticesContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.notices = MemoryNotices()
        self.other_notices = MemoryNotices(beside=self.notices)


class RunningTests(SynchronousTestCase):
    def test_a_contract_that_waits_for_ever_fails(self) -> None:
        """Without a reactor, a test that does not end immediately fails."""

        @synchronously
        class Stuck(Contract, SynchronousTestCase):
            async def test_it(self) -> None:
                await Deferred()

        self.assertRaises(self.failureException, Stuck("test_it").test_it)

    def test_an_error_that_does_not_come_fails(self) -> None:
        """If an expected error is not raised, the test fails."""

        class Mild(Contract, SynchronousTestCase):
            async def nothing(self) -> None:
                """Raise nothing."""

        case = Mild()
        self.failureResultOf(
            start(case.assert_raises(KeyError, case.nothing())), self.failureException
        )


class OnMemory(ClosuresContract):
    def setUp(self) -> None:
        self.catalog = MemoryCatalog()
        self.pins = MemoryPins(self.catalog)
        self.references = MemoryPathGraph(self.catalog)
        self.removals = MemoryRemovals(self.catalog)


@synchronously
class MemoryPinsTests(OnMemory, PinsContract, SynchronousTestCase):
    """Pins in memory."""


@synchronously
class MemoryPathGraphTests(OnMemory, PathGraphContract, SynchronousTestCase):
    """The graph of paths in memory."""


@synchronously
class MemoryTwinsTests(TwinsContract, SynchronousTestCase):
    """Twins in memory."""

    def setUp(self) -> None:
        self.catalog = catalog = MemoryCatalog()
        self.removals = MemoryRemovals(catalog)
        self.twins = MemoryTwins(catalog)


@synchronously
class InstantTranscoderTests(TranscoderContract, SynchronousTestCase):
    """The transcoder in memory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.transcoder = InstantTranscoder(self.directory)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.directory.iterdir()]


@synchronously
class MemoryRemovalsTests(OnMemory, RemovalsContract, SynchronousTestCase):
    """Removals in memory."""


@synchronously
class FakeDocumentsTests(DocumentsContract, SynchronousTestCase):
    documents: FakeDocuments

    def setUp(self) -> None:
        self.documents = FakeDocuments()

    def _url(self, name: str) -> str:
        return f"https://issuer.example/{name}"

    def publish(self, name: str, data: bytes) -> str:
        self.documents.holds = False
        self.documents.pages[self._url(name)] = data
        return self._url(name)

    def withdraw(self, name: str) -> None:
        del self.documents.pages[self._url(name)]

    def redirect(self, name: str, url: str) -> str:
        self.documents.moved.add(self._url(name))
        return self._url(name)

    def hang(self, name: str) -> str:
        self.documents.holds = True
        return self._url(name)
