"""Complaints of the libraries that send telemetry."""

from __future__ import annotations

import logging

from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.otel.complaints import (
    THREADS,
    forget_complaint,
    keep_complaints,
    latest_complaint,
)


class ComplaintTests(SynchronousTestCase):
    def setUp(self) -> None:
        keep_complaints()
        forget_complaint()
        self.passed: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.passed.append(record.msg)  # type: ignore[method-assign]
        logging.getLogger("urllib3").addHandler(handler)
        self.addCleanup(logging.getLogger("urllib3").removeHandler, handler)

    def complain(self, thread: str) -> None:
        logger = logging.getLogger("urllib3.connection")
        record = logger.makeRecord(logger.name, logging.WARNING, "f", 1, thread, (), None)
        record.threadName = thread
        logger.handle(record)

    def test_a_library_that_others_use_is_silent_in_our_threads_only(self) -> None:
        """Lines about the store in S3 are still logged."""
        self.complain(f"{THREADS}traces")
        self.complain("store-1")
        self.assertEqual(["store-1"], self.passed)
        self.assertEqual("otel-traces", latest_complaint())

    def test_a_complaint_of_an_earlier_batch_is_no_reason(self) -> None:
        """It is forgotten before the next batch is sent."""
        self.complain(f"{THREADS}traces")
        forget_complaint()
        self.assertEqual("", latest_complaint())
