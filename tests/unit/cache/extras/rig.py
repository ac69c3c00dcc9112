"""The verbs for extras over a core with two upstreams in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.cache.cache import PullThrough
from ncps.cache.extras.answers import ServedExtra
from ncps.cache.extras.kept import ExtraBounds
from ncps.cache.extras.verbs import ExtraRules, ExtraVerbs
from ncps.codec import encoder
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import EXTENSIONS, NarKey
from tests.fakes.samples import OWN_KEY, Sample, sample, signed
from tests.fakes.stores import MemoryConfigStore, MemoryExtraStore
from tests.nars import Tree, archive
from tests.unit.cache.rig import CoreCase

BUILD_ID = "ab" + "c" * 38
MEMBER = f"lib/debug/.build-id/ab/{'c' * 38}.debug"
SYMBOLS = b"\x7fELF" + bytes(range(256)) * 4000
LIB: Tree = {b"debug": {b".build-id": {b"ab": {b"c" * 38 + b".debug": SYMBOLS}}}}
TREE: Tree = {
    b"lib": LIB,
    b"zz": b"the rest" * 1000,
}


def packed(tree: Tree, name: str = "hello-1.0", compression: str = "xz") -> Sample:
    """Make a store path of a tree."""
    nar = archive(tree)
    maker = encoder(compression)
    file = maker.feed(nar) + maker.finish()
    key = NarKey(sha256_of(file).nix32, EXTENSIONS.get(compression, ""))
    old = sample(name, 10).narinfo
    narinfo = evolve(
        old,
        store_path=evolve(old.store_path, name=name),
        url=key.url,
        compression=compression,
        file_hash=sha256_of(file),
        file_size=len(file),
        nar_hash=sha256_of(nar),
        nar_size=len(nar),
    )
    return Sample(nar=nar, file=file, narinfo=signed(narinfo))


class ExtrasCase(CoreCase):
    """`setUp` makes the verbs over the core."""

    bounds = ExtraBounds(object_size=100_000, fetched_size=1_000_000, uploaded_size=300_000)
    is_absent_when_away = True

    def setUp(self) -> None:
        self.kept = MemoryExtraStore()
        super().setUp()

    def restart(self) -> None:
        super().restart()
        cache = PullThrough(
            self.world, self.core, public_key=OWN_KEY.public, config=MemoryConfigStore()
        )
        rules = ExtraRules(
            bounds=self.bounds,
            negative_ttl_s=30,
            negative_entries=100,
            is_absent_when_away=self.is_absent_when_away,
        )
        self.extras = ExtraVerbs(self.world, cache, self.kept, rules)
        self.core.records.symbols.on_unread = self.extras.stored
        self.core.records.symbols.on_found = self.extras.found

    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual([], [body for body in self.kept.bodies if not body.is_closed], "open")

    async def read(self, verb: Coroutine[Deferred[Any], Any, ServedExtra]) -> tuple[bytes, str]:
        """Return the bytes and the outcome of an answer."""
        found = await verb
        try:
            data = b"".join([chunk async for chunk in found.body])
        finally:
            found.body.close()
        self.assertEqual(found.size, len(data))
        return data, found.outcome.value

    def store_nar(self, one: Sample) -> None:
        """Let a path be fetched and stored."""
        self.origin.add(one)
        self.learn(one)
        self.assertEqual(one.file, self.download(one.key))
