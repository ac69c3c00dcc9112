"""A certificate for ports of the tests, and clients that trust it."""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from ncps.aio.certificate import CertificateFiles
from ncps.observe.metrics import Metrics
from ncps.web.certificates import Certificates
from tests.fakes.threads import InlineThreads
from tests.integration.servers.certificates import Authority

reactor: Any = _reactor


@cache
def authority() -> Authority:
    """Return the authority of this process."""
    return Authority(Path(tempfile.mkdtemp(prefix="ncps-authority-")), "authority")


def certificates(metrics: Metrics, *, handshake_s: float = 10.0) -> Certificates:
    """Return the certificates of a server at 127.0.0.1, ready for connections."""
    cert, key = authority().issue("server", names=("127.0.0.1", "localhost"), days=90)
    files = CertificateFiles(cert=cert, key=key)
    made = Certificates(reactor, InlineThreads(), metrics, files, handshake_s=handshake_s)
    looked = Deferred.fromCoroutine(made.look())
    assert looked.called
    return made


def client_context() -> ssl.SSLContext:
    """Return the TLS context of a client that trusts only this authority."""
    return ssl.create_default_context(cafile=authority().path)
