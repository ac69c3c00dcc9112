"""Rows of the catalog as records, and the reverse."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from ncps.database.rows import WITHOUT_BYTES, columns_of
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import NarRecord

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class ColumnsTests(SynchronousTestCase):
    def test_a_row_without_bytes_is_the_record_without_bytes(self) -> None:
        """A row that is inserted before its bytes are recorded has all other facts of the NAR."""
        nar = NarRecord(
            key=NarKey("0" * 52, "xz"),
            compression="xz",
            encoding="xz",
            file_size=10,
            file_hash=sha256_of(b"file"),
            nar_size=20,
            nar_hash=sha256_of(b"nar"),
            stored_size=10,
            stored_tag="tag",
            stored_at=NOW,
            verified_at=NOW,
            last_used_at=NOW,
            uploaded_at=NOW,
        )
        self.assertEqual(columns_of(nar) | dict(WITHOUT_BYTES), columns_of(nar.without_bytes()))
