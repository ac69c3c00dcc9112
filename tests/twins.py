"""A daemon that makes twins without delay, also on a machine that has other work."""

from __future__ import annotations

from typing import Final

OPTIONS: Final = (
    *("--cache-recompress", "zstd", "--cache-recompress-nars", "all"),
    *("--cache-recompress-max-load", "10000", "--cache-recompress-cpu-share", "6400"),
    *("--cache-recompress-min-size", "1K"),
)
CONSTANTS: Final[dict[str, float]] = {
    "ncps.process.transcoder.NICE": 0,
    "ncps.assembly.recompression.LOOK_S": 0.5,
    "ncps.assembly.recompression.LEAST_MEMORY": 0,
    "ncps.assembly.recompression.NEEDS_MAINS": False,
    "ncps.cache.recompress.convert.ROOMY": 0,
    "ncps.cache.recompress.work.CALM_S": 0.0,
    "ncps.cache.recompress.idle.OWN_SHARE": 1e9,
    "ncps.cache.recompress.idle.SAMPLE_S": 0.0,
}
