"""The one authority that tests trust, and that has signed nothing.

OpenSSL reads the authorities of the system anew for each context of TLS, for 0.03 s of a processor.
PyMySQL makes such a context for each connection. No test needs an authority of the system, because
no test leaves the machine; a test that needs an authority makes its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from tests import fixtures

VARIABLE: Final = "SSL_CERT_FILE"
FILE: Final = str(fixtures.AUTHORITY)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what makes a program trust it, unless its environment names other authorities."""
    return {} if "NIX_SSL_CERT_FILE" in environment else {VARIABLE: FILE}


def trust() -> None:
    """Have this process, and the processes that inherit its environment, trust that one alone."""
    os.environ[VARIABLE] = FILE
