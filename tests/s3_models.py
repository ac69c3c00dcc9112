"""Botocore's descriptions of services, read once for all S3 clients of a process.

Each session reads them anew, for 0.15 s of a processor. A program makes one client; tests make
hundreds. Sessions share nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

with suppress(ImportError):  # an extra that is not installed
    import boto3
    import botocore.session

    # The session module has a name of its own for it, which is the one that counts.
    botocore.session.create_loader = cache(botocore.session.create_loader)


def read() -> None:
    """Read the descriptions now."""
    boto3.session.Session().client("s3", region_name="us-east-1").close()
