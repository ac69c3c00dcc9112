"""Session: HTTP requests to a collector, whose answers are bounded in size and time."""

from __future__ import annotations

import time
from typing import Any, Final

from requests import Response, Session
from requests.exceptions import ReadTimeout, RequestException

MOST_BYTES: Final = 64 * 1024
"""Bytes of an answer's body that are read and dropped, at most."""
LONGEST_S: Final = 10.0
"""Seconds for the body of an answer, if the request has no timeout."""


class BoundedSession(Session):
    """A session that reads the body of an answer only to use the connection again."""

    def request(self, *arguments: Any, **named: Any) -> Response:
        """See `requests.Session`. Raises ReadTimeout or RequestException if a limit is exceeded."""
        until = time.monotonic() + (named.get("timeout") or LONGEST_S)
        response = super().request(*arguments, **{**named, "stream": True})
        try:
            _drain(response, until)
        except BaseException:
            response.close()
            raise
        return response


def _drain(response: Response, until: float) -> None:
    left = MOST_BYTES
    while left > 0 and (data := response.raw.read1(left, decode_content=False)):
        left -= len(data)
        if time.monotonic() > until:
            raise ReadTimeout("the answer does not end")
    if left <= 0:
        raise RequestException(f"the answer has more than {MOST_BYTES} bytes")
