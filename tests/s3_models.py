"""Botocore's descriptions of services, read once for all S3 clients of a process.

Each session reads them again, for 0.15 s of CPU time. A program makes one client; tests make
hundreds. Sessions share nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

with suppress(ImportError):  # an extra that is not installed
    import boto3
    import botocore.session

    # The session module has imported the name, so it is replaced there.
    botocore.session.create_loader = cache(botocore.session.create_loader)


def read() -> None:
    """Read the descriptions now."""
    boto3.session.Session().client("s3", region_name="us-east-1").close()
