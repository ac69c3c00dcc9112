"""A core that makes twins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ncps.cache.recompress.convert import Converter
from ncps.cache.recompress.idle import Idleness
from ncps.cache.recompress.make import TwinMaker, TwinRules
from ncps.cache.recompress.remake import TwinRemaker
from ncps.cache.recompress.work import CALM_S, COMPRESSIONS, Originals, Recompressing
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, opaque_key
from ncps.ports import NarRecord, TwinCandidates
from tests.fakes.metrics import series
from tests.fakes.samples import Sample, packed
from tests.fakes.twins import InstantTranscoder
from tests.unit.cache.rig import CoreCase

KEEP_S = 1000.0
BRIEF_S = 100.0


class TwinCase(CoreCase):
    """`one` is a path whose NAR is stored; its upstream is `origin`."""

    def restart(self) -> None:
        super().restart()
        self.transcoder = InstantTranscoder(Path(self.mktemp()))
        self.load: float | None = 0.0
        self.used = 0.0
        self.converter = Converter(
            self.world, read=self.nars.read, transcoder=self.transcoder, threads=1
        )
        remaker = TwinRemaker(self.world, self.converter, self.core.records, self.verifier.verify)
        self.nars.remake = remaker.remake
        self.rule(level=3)
        self.is_tight = False
        self.originals = Originals(
            self.world,
            self.narinfos,
            self.uses,
            is_arriving=self.nars.is_arriving,
            stays_s=lambda: BRIEF_S if self.is_tight else KEEP_S,
        )

    def rule(self, *, level: int = 3, max_growth: int = 150, reused_s: float | None = None) -> None:
        """Go on with other rules."""
        rules = TwinRules(level=level, max_growth=max_growth)
        self.maker = TwinMaker(self.world, self.converter, self.core.records, self.board, rules)
        self.idleness = Idleness(
            self.clock,
            load=lambda: self.load,
            used=lambda: self.used,
            may_work=lambda: not self.nars.arriving,
            most=1.0,
            own=2.0,
        )
        wanted = TwinCandidates(compressions=COMPRESSIONS, min_size=100, reused_s=reused_s)
        self.work = Recompressing(self.world, self.maker, self.verifier, self.idleness, wanted)
        self.clock.advance(10)

    def setUp(self) -> None:
        super().setUp()
        self.one = packed("one", b"some contents of one " * 5000, "xz")
        self.keep(self.one)

    def keep(self, *samples: Sample) -> None:
        """Have paths stored, as clients ask for them."""
        for sample in samples:
            self.origin.add(sample)
        self.learn(*samples)
        for sample in samples:
            self.assertEqual(sample.file, self.download(sample.key))

    def run_work(self, after_s: float = CALM_S) -> None:
        self.clock.advance(after_s)
        self.get(self.work.run())
        self.clock.advance(0)

    def twin_key(self, sample: Sample, variant: int = 0) -> NarKey:
        return opaque_key("zstd", sample.narinfo.nar_hash, variant)

    def told(self, sample: Sample) -> NarInfo:
        """The narinfo as clients get it."""
        return NarInfo.parse(self.get(self.narinfos.get(sample.digest)).text)

    def row(self, key: NarKey) -> NarRecord:
        record = self.catalog.records.get(key)
        assert record is not None
        return record

    def lose(self, key: NarKey) -> None:
        """Have the bytes of a NAR evicted."""
        self.get(self.catalog.mark_missing(key))
        del self.store.objects[key]
        self.board.nar_changed(key)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds(), UTC)

    @property
    def outcomes(self) -> dict[str, float]:
        return {name: count for name, count in series(self.metrics.recompressions).items() if count}
