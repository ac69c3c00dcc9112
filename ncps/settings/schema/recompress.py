"""Settings of recompression: stored NARs are kept in zstd, which clients unpack faster than xz."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.hours import HOURS, Hours
from ncps.settings.kinds.values import choice, duration, integer, size
from ncps.settings.setting import SettingNames


@frozen(kw_only=True)
class RecompressSettings:
    """The NARs to recompress, the level, and the times."""

    to: str = setting(
        choice(("auto", "zstd", "off")),
        "auto",
        "Compression to which ncps converts stored NARs in xz, bzip2 or none in the background, "
        "while the machine is idle: zstd, or off to convert none. Clients unpack zstd several "
        "times faster than xz. The new file has a URL of its own, and narinfos name it from then "
        "on. NARs that clients have uploaded stay as they are. auto is zstd while the clients are "
        "slower than the network, for a store in a directory without --cache-max-size; it is off "
        "for other stores.",
        flag="cache-recompress",
        bare="off",
        aliases=(SettingNames(key="cache.recompress", is_current=True),),
    )
    nars: str = setting(
        choice(("reused", "all")),
        "reused",
        "Stored NARs that ncps converts: reused converts those that a client asked for again "
        "within the last week, a minute or more after they were stored, because other clients will "
        "probably ask for them, too; all converts every NAR.",
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
    cpu_share: int = setting(
        integer(at_least=1, at_most=6400),
        "50",
        "Percentage of one processor that this work uses at most, on average over a minute. This "
        "limit does not hold for a file that a client waits for.",
    )
    min_size_bytes: int = setting(
        size(at_least=1),
        "64K",
        "Size of the smallest file that is recompressed.",
    )
    max_growth: int = setting(
        integer(at_least=1, at_most=1000),
        "150",
        "Size that the new file may have, as a percentage of the old one. ncps removes a larger "
        "new file, and clients go on getting the old one. In place of a file without compression, "
        "which clients need not unpack, the new file may have 90 percent at most.",
    )
    max_load: int = setting(
        integer(at_least=1, at_most=10000),
        "50",
        "Percentage of the processors that other work may use while the machine still counts as "
        "idle, by the load average of the last minute. ncps also waits while it downloads a NAR "
        "or itself uses more than a fifth of a processor, while the machine runs on its battery, "
        "and while less than 512M of memory are available.",
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
        "Time for which the old file stays after the narinfo names the new one, and after a "
        "client last asked for the old one. After that, ncps answers its URL from the upstream.",
    )
