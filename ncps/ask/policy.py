"""The only failure policy (D9): makes the client's answer from the answers of all upstreams.

    every upstream that was asked or should have been     the client gets
    ---------------------------------------------------   -----------------------------------
    at least one good answer                              that answer
    of those that have a say (see `Say`):
      all: surely absent (404, 410, 403)                  NotFound: 404
      some have one that no key vouches for, rest absent  NotFound: 404
      some could not tell, at least one by timeout        Unavailable: 504 and Retry-After
      some could not tell, each by other failures         Unavailable: 503 and Retry-After
      some gave bad bytes or facts, the rest absent       Corrupt: 502
    no upstream has a say                                 AllAway: 404 or 503, as a setting says
    there is no upstream at all                           NotFound: 404

An absence is remembered only if each upstream has denied the thing for sure. A Nix client remembers
each 404 for an hour and builds instead. After a 5xx it tries again, five times; then it fails,
unless it has another substituter or `fallback`. 429 is never sent, because recent clients wait for
a minute after it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ncps.errors import Busy, Corrupt, NcpsError, NotFound, Unavailable, Unusable

RETRY_AFTER_S = 2.0

MAX_ANSWER_TEXT = 1000
"""Characters of the message that a client gets about a failure, at most."""

_UNFIT = re.compile(r"[^ -~]+")


class AllAway(Unavailable):
    """No upstream could be asked: each has been away for a while, or refuses us."""


def kind_of(error: NcpsError) -> str:
    """Return the value of the label `kind` for a failure; empty if the upstream did not fail.

    Late is the only Busy error with `timed_out`: it is a failure of the upstream.
    """
    is_ours = isinstance(error, Busy) and not error.timed_out
    if is_ours or not isinstance(error, Unavailable | Corrupt):
        return ""
    return error.kind


def verdict(
    failures: Mapping[str, NcpsError], what: str, left_out: Collection[str] = ()
) -> NcpsError:
    """Return the error to raise if no upstream had a good answer.

    :param failures: the error of each upstream, by its name.
    :param what: names the requested thing in the message.
    :param left_out: names of the upstreams that have no say.
    """
    error = _verdict(failures, what, left_out)
    error.told = _UNFIT.sub(" ", str(error))[:MAX_ANSWER_TEXT]
    return error


def _verdict(failures: Mapping[str, NcpsError], what: str, left_out: Collection[str]) -> NcpsError:
    reasons = ", ".join(f"{name} ({error})" for name, error in failures.items())
    heard = [error for name, error in failures.items() if name not in left_out]
    if failures and not heard:
        retry_after = _retry_after(failures.values())
        return AllAway(f"no upstream could be asked: {reasons}", retry_after=retry_after)
    unsure = [error for error in heard if isinstance(error, Unavailable)]
    if unsure:
        return Unavailable(
            f"could not tell whether there is {what}: {reasons}",
            retry_after=_retry_after(unsure),
            timed_out=any(error.timed_out for error in unsure),
        )
    if any(isinstance(error, Corrupt) and not isinstance(error, Unusable) for error in heard):
        return Corrupt(f"no upstream has a good {what}: {reasons}")
    is_certain = len(heard) == len(failures) and all(
        isinstance(error, NotFound) and error.is_certain for error in heard
    )
    text = f"no upstream has {what}" + (f": {reasons}" if reasons else "")
    return NotFound(text, is_certain=is_certain)


def _retry_after(errors: Collection[NcpsError]) -> float:
    """Return the seconds after which the first upstream may answer, at least `RETRY_AFTER_S`."""
    waits = [
        error.retry_after
        for error in errors
        if isinstance(error, Unavailable) and error.retry_after is not None
    ]
    return max(RETRY_AFTER_S, min(waits, default=RETRY_AFTER_S))
