"""Settings of the size of the store, and of what is removed from it."""

from __future__ import annotations

from ncps.settings.eviction import MAX_SIZE, SCHEDULE, ZONE
from ncps.settings.setting import Setting
from ncps.settings.values import SIZE, duration, integer

_SIZE = "Size"

ROWS = (
    Setting(
        flag="cache-max-size",
        key="cache.max-size",
        kind=MAX_SIZE,
        default="",
        group=_SIZE,
        help="Bytes of NARs that the store may hold. Beyond that the NARs unwanted for longest "
        "are removed; they can be fetched again. A NAR larger than this is passed on to clients "
        "without being kept. Without it the store grows until --cache-storage-min-free is reached.",
    ),
    Setting(
        flag="cache-lru-schedule",
        key="cache.lru.schedule",
        kind=SCHEDULE,
        default="",
        group=_SIZE,
        help="When NARs are removed down to --cache-lru-low-mark before --cache-max-size forces "
        "it: five fields of cron, @every and a duration, or @hourly, @daily, @weekly, @monthly, "
        "@yearly. Needs --cache-max-size, which holds at any other time, too.",
    ),
    Setting(
        flag="cache-lru-schedule-timezone",
        key="cache.lru.timezone",
        environment="CACHE_LRU_SCHEDULE_TZ",
        kind=ZONE,
        default="Local",
        group=_SIZE,
        help="Time zone of --cache-lru-schedule, such as Europe/Berlin; Local is the machine's.",
    ),
    Setting(
        flag="cache-lru-low-mark",
        key="cache.lru.low-mark",
        kind=integer(at_least=1, at_most=100),
        default="90",
        group=_SIZE,
        help="Percentage of --cache-max-size that NARs are removed down to, so that not every "
        "write has to remove some.",
    ),
    Setting(
        flag="cache-lru-grace",
        key="cache.lru.grace",
        kind=duration(),
        default="5m",
        group=_SIZE,
        help="Time for which a NAR stays after it or one of its narinfos was last asked for, even "
        "if the store is over its size meanwhile. Several instances tell each other of uses "
        "within a minute.",
    ),
    Setting(
        flag="cache-lru-orphan-grace",
        key="cache.lru.orphan-grace",
        kind=duration(),
        default="24h",
        group=_SIZE,
        help="Age from which objects in the store are removed that the database does not know, as "
        "a crash leaves them; looked for once a day, whether or not there is a --cache-max-size. "
        "Those older than the database itself are never removed. 0 for never.",
    ),
    Setting(
        flag="cache-quarantine-max-count",
        key="cache.quarantine.max-count",
        kind=integer(at_most=100_000),
        default="100",
        group=_SIZE,
        help="Stored files that were found wrong and are kept for the operator in "
        "store/quarantine, at most; the oldest are removed first. They do not count for "
        "--cache-max-size. 0 keeps none: what is wrong is deleted at once.",
    ),
    Setting(
        flag="cache-quarantine-max-size",
        key="cache.quarantine.max-size",
        kind=SIZE,
        default="1G",
        group=_SIZE,
        help="Bytes of all of them, at most, likewise. A single file that is larger is deleted at "
        "once, and with 0 every one is.",
    ),
    Setting(
        flag="cache-quarantine-max-age",
        key="cache.quarantine.max-age",
        kind=duration(),
        default="720h",
        group=_SIZE,
        help="Time for which each of them is kept, at most; looked after every ten minutes. 0 "
        "keeps none.",
    ),
)
