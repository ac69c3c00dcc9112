"""Several replicas as one cache, over a real database server, S3 and Redis."""

import tests.heap  # noqa: F401
