"""Settings of logs, listings and debug information."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.values import SIZE, size


@frozen(kw_only=True)
class ExtraSettings:
    """Limits of build logs, listings and links to debug information."""

    max_object_size_bytes: int = setting(
        size(at_least=4096, at_most=2**30),
        "16M",
        "Size of a build log, or of the listing of a NAR, at most. ncps does not fetch, make or "
        "accept larger ones. At most 12 are in memory at the same time.",
        counted=True,
    )
    max_size_bytes: int = setting(
        SIZE,
        "1G",
        "Bytes of build logs, listings and links to debug information that ncps has fetched or "
        "made, at most. Beyond that, it removes the oldest; it can get them again. 0 to keep none.",
    )
    max_uploaded_size_bytes: int = setting(
        SIZE,
        "4G",
        "Bytes of build logs and links to debug information that clients have uploaded, at most; "
        "further ones get 507. They are never removed.",
        counted=True,
    )
