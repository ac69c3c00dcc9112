"""Settings of prefetch: objects that ncps fetches before a client asks for them."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.values import SIZE, choice, integer


@frozen(kw_only=True)
class PrefetchSettings:
    """The kind and the amount of objects that are fetched ahead (D6)."""

    policy: str = setting(
        choice(("off", "narinfo", "small", "all")),
        "small",
        "Objects that ncps fetches ahead when a client asks for a new narinfo. off: nothing. "
        "narinfo: the narinfos of its references, and of theirs, level by level. small: these, "
        "and NARs of at most --cache-download-small-size. all: these, and all NARs.",
        flag="cache-prefetch",
    )
    per_minute_bytes: int = setting(
        SIZE,
        "512M",
        "Bytes of NARs that are fetched ahead in a minute, at most. 0 for no NAR.",
        shared=True,
    )
    max_questions: int = setting(
        integer(),
        "20000",
        "Narinfos that ncps asks upstreams for ahead in a minute, at most. 0 for none.",
        shared=True,
    )
    max_queue: int = setting(
        integer(),
        "10000",
        "Narinfos that may wait to be fetched ahead, and the same number of NARs. ncps does not "
        "fetch further ones ahead.",
        shared=True,
    )
