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
        "Percentage of --cache-max-size that NARs are removed down to, so that not every write "
        "has to remove some.",
    )
    grace_s: float = setting(
        duration(),
        "5m",
        "Time for which a NAR stays after a client last asked for it or for one of its narinfos, "
        "even if the store is over its size meanwhile. Several instances tell each other of uses "
        "within a minute.",
    )
    evict_uploads: bool = setting(
        BOOLEAN,
        "false",
        "Remove NARs that clients have uploaded, too, once nothing is left that an upstream has. "
        "They cannot be fetched again. Without this, a store that is full of them refuses further "
        "uploads with 507.",
    )
    orphan_grace_s: float = setting(
        duration(),
        "24h",
        "Age from which ncps removes objects in the store that have no record in the database, as "
        "a crash leaves them. It looks once a day, with or without --cache-max-size. Objects "
        "older than the database itself are never removed. 0 for never.",
    )


@frozen(kw_only=True)
class QuarantineSettings:
    """The stored files found wrong that are kept; 0 of anything: none."""

    max_count: int = setting(
        integer(at_most=100000),
        "100",
        "Stored files that were found wrong and are kept for the operator in store/quarantine, at "
        "most; the oldest are removed first. They do not count for --cache-max-size. With 0, "
        "wrong files are deleted at once.",
    )
    max_size_bytes: int = setting(
        SIZE,
        "1G",
        "Bytes of all these files, at most; the oldest are removed first. A single file that is "
        "larger is deleted at once. With 0, wrong files are deleted at once.",
    )
    max_age_s: float = setting(
        duration(),
        "720h",
        "Time for which each of these files is kept, at most; checked every ten minutes. With 0, "
        "wrong files are deleted at once.",
    )
