"""Settings of the size of the store, and of removals from it."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.schedule import SCHEDULE, ZONE, ScheduleSetting
from ncps.settings.kinds.values import BOOLEAN, SIZE, duration, integer


@frozen(kw_only=True)
class EvictionSettings:
    """The times and the order in which NARs are removed from the store.

    :ivar low_mark: percentage of the size the store may have.
    :ivar timezone: a name, or Local.
    """

    schedule: ScheduleSetting = setting(
        SCHEDULE,
        "",
        "Times at which ncps removes NARs down to --cache-lru-low-mark, before --cache-max-size "
        "forces it: five fields of cron, @every and a duration, or @hourly, @daily, @weekly, "
        "@monthly, @yearly. Needs --cache-max-size, which holds at all other times, too.",
    )
    timezone: str = setting(
        ZONE,
        "Local",
        "Time zone of --cache-lru-schedule, such as Europe/Berlin; Local is the machine's.",
        flag="cache-lru-schedule-timezone",
        environment="CACHE_LRU_SCHEDULE_TZ",
    )
    low_mark: int = setting(
        integer(at_least=1, at_most=100),
        "90",
        "Percentage of --cache-max-size to which ncps shrinks the store when it removes NARs, so "
        "that not every write has to remove some.",
    )
    grace_s: float = setting(
        duration(),
        "5m",
        "Time for which a NAR stays after a client last asked for it or for one of its narinfos, "
        "even if the store is too large meanwhile. Instances of one cache learn of each other's "
        "requests within a minute.",
    )
    evict_uploads: bool = setting(
        BOOLEAN,
        "false",
        "Also remove NARs that clients have uploaded, if all NARs that an upstream has are "
        "removed already. ncps cannot fetch uploaded NARs again. Without this, a store that is "
        "full of them refuses further uploads with 507.",
    )
    orphan_grace_s: float = setting(
        duration(),
        "24h",
        "Age from which ncps removes objects in the store that have no record in the database, as "
        "a crash leaves them. ncps looks for them once a day, with or without --cache-max-size. "
        "It never removes objects that are older than the database itself. 0 for never.",
    )


@frozen(kw_only=True)
class QuarantineSettings:
    """Limits of the stored files that were found wrong and are kept; with a limit of 0, none is."""

    max_count: int = setting(
        integer(at_most=100000),
        "100",
        "Stored files that were found wrong and are kept for the operator in store/quarantine, at "
        "most; the oldest are removed first. They do not count for --cache-max-size. With 0, ncps "
        "deletes wrong files immediately.",
    )
    max_size_bytes: int = setting(
        SIZE,
        "1G",
        "Bytes of all these files, at most; the oldest are removed first. ncps deletes a single "
        "file that is larger immediately, and with 0 all wrong files.",
    )
    max_age_s: float = setting(
        duration(),
        "720h",
        "Time for which each of these files is kept, at most; checked every ten minutes. With 0, "
        "ncps deletes wrong files immediately.",
    )
