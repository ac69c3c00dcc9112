"""Several replicas that are one cache: over a database server, S3 and Redis, all of them real."""

import tests.heap  # noqa: F401
