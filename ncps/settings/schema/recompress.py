"""Settings of recompression: stored NARs are kept in zstd, which clients unpack faster than xz."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.hours import HOURS, Hours
from ncps.settings.kinds.values import choice, duration, integer, size


@frozen(kw_only=True)
class RecompressSettings:
    """The NARs that are compressed anew, and the ways and times."""

    to: str = setting(
        choice(("off", "zstd")),
        "off",
        "Compression that stored NARs in xz, bzip2 or none are given in the background, while the "
        "machine is idle: zstd, or off for none. Clients unpack zstd several times faster than xz. "
        "The new file has a URL of its own, and narinfos name it from then on. NARs that clients "
        "have uploaded stay as they are.",
    )
    level: int = setting(
        integer(at_least=1, at_most=19),
        "9",
        "Level of compression. A higher one makes smaller files and takes longer; clients unpack "
        "all of them equally fast.",
    )
    threads: int = setting(
        integer(at_least=1, at_most=64),
        "1",
        "Threads that compress one NAR, beside the one that unpacks it. One NAR is compressed at a "
        "time, in all workers and replicas together.",
    )
    min_size_bytes: int = setting(
        size(at_least=1),
        "64K",
        "Size of a file from which it is worth while.",
    )
    max_growth: int = setting(
        integer(at_least=1, at_most=1000),
        "150",
        "Percentage of the size of the old file that the new one may have. A larger one is thrown "
        "away, and the old file stays what clients get.",
    )
    max_load: int = setting(
        integer(at_least=1, at_most=10000),
        "50",
        "Percentage of the processors that may be busy with other work, by the load average of the "
        "last minute, for the machine to count as idle. Besides, ncps waits while it downloads a "
        "NAR, or itself uses more than a fifth of a processor.",
    )
    hours: Hours = setting(
        HOURS,
        "",
        "Hours of the day in which NARs are compressed, such as 22-6, in the time zone of the "
        "machine. Without them, at all hours.",
    )
    keep_s: float = setting(
        duration(),
        "24h",
        "Time for which the old file stays after the narinfo names the new one, and after a client "
        "last asked for it. Later, its URL is answered from the upstream.",
    )
