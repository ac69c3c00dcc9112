"""Settings of uploads by clients."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.values import BOOLEAN, SIZE, duration


@frozen(kw_only=True)
class UploadSettings:
    """Limits and conditions of uploads by clients that may write."""

    max_size_bytes: int = setting(
        SIZE,
        "64G",
        "Bytes of one uploaded file, at most; a larger one gets 413. 0 for no such limit.",
        counted=True,
        reloads=True,
    )
    grace_s: float = setting(
        duration(at_least_s=60),
        "6h",
        "Time for which ncps keeps an uploaded NAR without a narinfo. `nix copy` sends the "
        "narinfo right after the NAR; the time is for clients that break off and come again.",
        reloads=True,
    )
    at_root: bool = setting(
        BOOLEAN,
        "false",
        "Accept uploads at the address of the cache itself, too, and not only below /upload. "
        "There, ncps answers a client that it has the paths that only an upstream has, and the "
        "client does not upload them.",
    )
    require_references: bool = setting(
        BOOLEAN,
        "false",
        "Accept an uploaded narinfo only if each of its references is stored here, or an upstream "
        "has it. `nix copy` uploads references first.",
        reloads=True,
    )
