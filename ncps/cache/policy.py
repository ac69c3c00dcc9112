"""The one failure policy (D9): from what every upstream answered to what the client is told.

    every upstream that was asked or should have been     the client gets
    ---------------------------------------------------   -----------------------------------
    at least one good answer                              that answer
    all: surely absent (404, 410, 403)                    NotFound: 404, remembered briefly
    some could not tell, at least one of them by timeout  Unavailable: 504 and Retry-After
    some could not tell, each of them by other failures   Unavailable: 503 and Retry-After
    some gave bad bytes or facts, the rest absent         Corrupt: 502
    there is no upstream at all                           NotFound: 404

"Could not tell" is never 404: a Nix client remembers a 404 for an hour and builds instead; a 503
it tries again, five times, and then falls back to its next substituter. 429 is never sent:
recent clients wait a minute for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable

RETRY_AFTER_S = 2.0


def verdict(failures: Mapping[str, NcpsError], what: str) -> NcpsError:
    """The error to raise after no upstream had a good answer.

    :param failures: what each upstream came to, by its name.
    :param what: the thing looked for, for the message.
    """
    told = ", ".join(f"{name}: {error}" for name, error in failures.items())
    unsure = [error for error in failures.values() if isinstance(error, Unavailable)]
    if unsure:
        waits = [error.retry_after for error in unsure if error.retry_after is not None]
        return Unavailable(
            f"could not tell whether there is {what} ({told})",
            retry_after=max(RETRY_AFTER_S, min(waits, default=RETRY_AFTER_S)),
            timed_out=any(error.timed_out for error in unsure),
        )
    if any(isinstance(error, Corrupt) for error in failures.values()):
        return Corrupt(f"no upstream has a good {what} ({told})")
    return NotFound(f"no upstream has {what}" + (f" ({told})" if told else ""))
