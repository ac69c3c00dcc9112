"""Private names of Twisted that the web uses: a release of Twisted may rename them.

`tests/structure/test_borrowed.py` fails if Twisted no longer has one of them, and if the web uses
one that is not in the list. Other packages have lists of their own, in the modules that use them.
"""

from __future__ import annotations

from typing import Final

BORROWED: Final = (
    "twisted.web.http.HTTPChannel._buffer",
    "twisted.web.http.HTTPChannel._command",
    "twisted.web.http.HTTPChannel._handlingRequest",
    "twisted.web.http.HTTPChannel._maybeChooseTransferDecoder",
    "twisted.web.http.HTTPChannel._networkProducer",
    "twisted.web.http.HTTPChannel._path",
    "twisted.web.http.HTTPChannel._receivedHeaderCount",
    "twisted.web.http.HTTPChannel._receivedHeaderSize",
    "twisted.web.http.HTTPChannel._respondToBadRequestAndDisconnect",
    "twisted.web.http.HTTPChannel._version",
    "twisted.web.http.HTTPChannel._waitingForTransport",
    "twisted.internet.tcp.Server._aborting",
    "twisted.internet.tcp.Server._tempDataBuffer",
    "twisted.internet.tcp.Server._writeDisconnecting",
)
"""Each name with its class."""
