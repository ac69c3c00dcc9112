"""Small NARs that wait to be stored together, and the places that they take from others."""

from __future__ import annotations

from tests.fakes.samples import sample
from tests.fakes.upstream import Script
from tests.unit.cache.nar.rig import NarsCase


class GatheringTests(NarsCase):
    small_size = 1 << 20

    def crowded(self, clients: int) -> list[bool]:
        """Fetch NARs one after the other, without a pause; return which are not stored yet."""
        self.core.publication.beat.pause_s = 0.02
        others = [sample(f"other{number}", size=2000) for number in range(clients)]
        for one in others:
            self.origin.add(one)
            self.learn(one)
            self.assertEqual(one.file, self.download(one.key))
            self.clock.advance(0.01)
        return [one.key not in self.store.objects for one in others]

    def test_those_that_wait_leave_places_for_further_ones(self) -> None:
        """A NAR that waits counts as a running download: the others could get 503."""
        self.most_downloads = 8
        self.restart()
        self.assertLessEqual(sum(self.crowded(30)), self.most_downloads // 4)
        self.assertEqual({}, self.reached)

    def test_one_whose_end_somebody_awaits_is_not_held_up(self) -> None:
        """It is stored soon, although others arrive without a pause: the waiter has a place."""
        self.core.publication.beat.pause_s = 0.02
        self.script(Script(stall_at=1000))
        client = self.client(self.key)
        download = self.core.running.find(self.key)
        assert download is not None
        early = self.start(download.end())
        self.origin.release()
        self.successResultOf(client.done)
        self.assertEqual([False, False, True], self.crowded(3))
        self.successResultOf(early)

    def test_somebody_comes_to_await_the_end(self) -> None:
        """The same, if the NAR waits already."""
        self.core.publication.beat.pause_s = 0.02
        self.download(self.key)
        late = self.start(self.core.running.ended(self.key))
        self.assertEqual([False, False, True], self.crowded(3))
        self.successResultOf(late)
