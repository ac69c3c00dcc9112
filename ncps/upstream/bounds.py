"""What one upstream may cost us, and how much of it we use at once."""

from __future__ import annotations

from attrs import frozen

from ncps.codec.ratio import USUAL
from ncps.nix.narinfo import MAX_SIZE
from ncps.upstream.connection import HEAD_SIZE


@frozen(kw_only=True)
class Bounds:
    """Towards one upstream; times in seconds, sizes in bytes.

    :param connections: transfers of NARs at once.
    :param queries: requests for narinfos and the like at once, which have connections of their
        own: NARs that take their time hold up no narinfo.
    :param queue: requests that may wait for their turn, of either kind.
    :param queue_s: how long each may wait.
    :param redirects: followed for one request.
    :param head_size: of the head of an answer, interim answers included.
    :param narinfo_size: of a narinfo's text.
    :param ratio: what an encoding that was not asked for may make of one byte.
    """

    connections: int = 32
    queries: int = 64
    queue: int = 5000
    queue_s: float = 60.0
    redirects: int = 10
    head_size: int = HEAD_SIZE
    narinfo_size: int = MAX_SIZE
    ratio: int = USUAL


USUAL_BOUNDS = Bounds()
