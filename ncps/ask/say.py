"""Say: whether it matters that an upstream could not tell.

One that was well a moment ago may have what is asked for, and may be back before a client gives
up: its silence is no absence. One that has been away for longer, or refuses us, has no say: the
others' answers count as if it were not there. A Nix client tries five times within about 4 s.

An upstream may answer probes and nothing else. So an answered probe gives the say back on trial:
the next question that fails takes it away at once, and then only an answered question gives it
back.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

AWAY_S = 2.0
"""How long an upstream must have failed, its breaker being open, until it has no say."""

TRIAL_S = 60.0
"""How long after an outage a probe's answer is not enough to be well."""

PROVEN_S = 3600.0
"""How long after a good answer a refused probe means nothing: buckets refuse what they have not."""


class Say:
    """The say of one upstream; times are the clock's seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._trial_ends = float("-inf")
        self._is_relapsed = False
        self._refusals: dict[bool, str] = {}
        self._proven_until = float("-inf")

    def has_say(self, *, is_open: bool) -> bool:
        """Whether it has a say now.

        :param is_open: whether its breaker is open.
        """
        since = self._failing_since
        is_away = is_open and since is not None and self._clock.seconds() - since >= AWAY_S
        return not (is_away or self._is_relapsed or self._refusals)

    @property
    def refusal(self) -> str:
        """How it refuses us; empty if it does not."""
        return next(iter(self._refusals.values()), "")

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last that came of asking it was a failure."""
        return self._failing_since is not None

    def failed(self, began: float, *, is_probe: bool) -> None:
        """Note that no answer came to what was asked at `began`."""
        if self._failing_since is None:
            self._failing_since = began
        if not is_probe and self._clock.seconds() < self._trial_ends:
            self._is_relapsed = True

    def refused(self, reason: str, *, is_probe: bool) -> None:
        """Note that it wants to see other credentials than ours."""
        if not (is_probe and self._clock.seconds() < self._proven_until):
            self._refusals[is_probe] = reason

    def answered(self, *, is_probe: bool, is_open: bool, is_good: bool) -> None:
        """Note an answer.

        :param is_open: whether its breaker was open until then.
        :param is_good: whether it gave what was asked for; that ends every refusal.
        """
        if is_probe and not self.has_say(is_open=is_open) and not self.refusal:
            self._trial_ends = self._clock.seconds() + TRIAL_S
        if not is_probe:
            self._trial_ends = float("-inf")
            self._is_relapsed = False
        self._failing_since = None
        self._refusals.pop(is_probe, None)
        if is_good and not is_probe:
            self._refusals.clear()
            self._proven_until = self._clock.seconds() + PROVEN_S
