"""Tests of the requested range of an object."""

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt
from ncps.storage.blobs import Wanted


class WantedTests(SynchronousTestCase):
    def test_bytes_end_where_they_should(self) -> None:
        """The range ends with the object unless a smaller end is given; it may be empty."""
        for wanted, end in (
            (Wanted(), 10),
            (Wanted(3), 10),
            (Wanted(3, 5, 10), 5),
            (Wanted(10, 10), 10),
            (Wanted(0, 0), 0),
        ):
            self.assertEqual(wanted.end("a NAR", 10), end)

    def test_an_object_of_another_size_is_corrupt(self) -> None:
        """The message names the object, its size, and the expected size or range."""
        for wanted, what in (
            (Wanted(size=11), "11 bytes"),
            (Wanted(0, 11), "bytes 0 to 11"),
            (Wanted(11), "bytes 11 to 10"),
            (Wanted(5, 4), "bytes 5 to 4"),
        ):
            error = self.assertRaises(Corrupt, wanted.end, "a NAR", 10)
            self.assertEqual(f"a NAR has 10 bytes in the store, wanted: {what}", str(error))
