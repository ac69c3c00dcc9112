"""The only authority that tests trust; it has signed no certificate.

For each TLS context OpenSSL reads the authorities of the system again, which takes 0.03 s of CPU.
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
    """Return variables that make a program trust it, unless its environment names others."""
    return {} if "NIX_SSL_CERT_FILE" in environment else {VARIABLE: FILE}


def trust() -> None:
    """Make this process, and the processes that inherit its environment, trust only it."""
    os.environ[VARIABLE] = FILE
