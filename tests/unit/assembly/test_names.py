"""The resolvers, and the names that each one looks up."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.resolver import MAX_OTHERS, MAX_PER_NAME, Resolver
from ncps.assembly.names import HostNames
from tests.fakes.wire import Wire
from tests.unit.settings.around import load_with


class NamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.settings = load_with(
            {"cache-upstream-url": ["http://a.example", "http://b.example?proxy=p.example"]}
        )
        self.names = HostNames(self.wire, self.settings)

    def test_reactor(self) -> None:
        """It gets our resolver, and its former one at the end."""
        before = self.wire.nameResolver
        self.names.start()
        self.assertIsInstance(self.wire.nameResolver, Resolver)
        self.successResultOf(self.stop())
        self.assertIs(before, self.wire.nameResolver)

    def test_each_upstream_has_its_own(self) -> None:
        """There are threads for all names in the settings."""
        self.names.start()
        first, second = map(self.names.of_upstream, self.settings.cache.upstream.upstreams)
        self.assertIsNot(first, second)
        self.assertNotIn(self.wire.nameResolver, (first, second))
        rest = 3 * (MAX_OTHERS + MAX_PER_NAME)
        self.assertEqual(rest + 3 * MAX_PER_NAME, self.names.threads)
        self.successResultOf(self.stop())

    def test_end_without_a_beginning(self) -> None:
        """A start that failed early can be stopped."""
        self.successResultOf(self.stop())

    def stop(self) -> Deferred[None]:

        return Deferred.fromCoroutine(self.names.stop())
