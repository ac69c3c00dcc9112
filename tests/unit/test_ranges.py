"""Tests of byte ranges and entity tags."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps import ranges
from ncps.ranges import ByteRange, RangeSpec, Unsatisfiable

TAG = b'"abc"'


def requested(header: bytes | None, size: int) -> ByteRange | None:
    """Return the bytes of an object that a Range header asks for; None for all."""
    spec = ranges.parse(header)
    return None if spec is None else spec.resolve(size)


class RangeTests(SynchronousTestCase):
    def test_the_three_shapes_are_resolved(self) -> None:
        """First to last byte, from a byte on, the last n; all cut at the end."""
        for header, start, stop in (
            (b"bytes=0-0", 0, 1),
            (b"bytes=5-9", 5, 10),
            (b"bytes=5-99", 5, 10),
            (b"bytes=5-", 5, 10),
            (b"bytes=-3", 7, 10),
            (b"bytes=-99", 0, 10),
            (b" Bytes = 5-9 ", 5, 10),
            (b"bytes=, 5-9 ,", 5, 10),
        ):
            wanted = requested(header, 10)
            self.assertEqual(wanted, ByteRange(start, stop), header)
            assert wanted is not None
            self.assertEqual(wanted.length, stop - start)

    def test_unusual_ranges_are_ignored(self) -> None:
        """Several ranges, other units and bad syntax give the whole object."""
        for header in (
            None,
            b"",
            b"bytes",
            b"bytes=",
            b"bytes=,",
            b"bytes=5",
            b"bytes=-",
            b"bytes=9-5",
            b"bytes=0-1,3-4",
            b"bytes=a-b",
            b"bytes=1-b",
            b"bytes=+1-2",
            b"bytes=1--2",
            b"bytes=1 - 2",
            b"bytes=\xb2-",
            b"lines=0-1",
            b"bytes=0-" + b"9" * 20,
            b"bytes=" + b" " * 200 + b"0-1",
        ):
            self.assertIsNone(requested(header, 10), header)

    def test_a_range_outside_of_the_object_is_unsatisfiable(self) -> None:
        """The error has the Content-Range of the 416."""
        for header, size in (
            (b"bytes=10-", 10),
            (b"bytes=10-20", 10),
            (b"bytes=-0", 10),
            (b"bytes=0-", 0),
            (b"bytes=-5", 0),
        ):
            with self.assertRaises(Unsatisfiable) as caught:
                requested(header, size)
            self.assertEqual(caught.exception.size, size)
            self.assertEqual(caught.exception.content_range, b"bytes */%d" % size)

    def test_a_range_is_read_without_the_size(self) -> None:
        """The start of the last n bytes depends on the size."""
        for header, spec in (
            (b"bytes=5-", RangeSpec(5, None)),
            (b"bytes=5-9", RangeSpec(5, 9)),
            (b"bytes=-5", RangeSpec(None, 5)),
        ):
            self.assertEqual(ranges.parse(header), spec)

    def test_content_range_counts_to_the_last_byte(self) -> None:
        """The last position is inclusive, and the size may be unknown."""
        self.assertEqual(ranges.content_range(ByteRange(5, 10), 20), b"bytes 5-9/20")
        self.assertEqual(ranges.content_range(ByteRange(0, 1), None), b"bytes 0-0/*")

    @given(st.binary(max_size=40), st.integers(0, 100))
    def test_any_header_gives_bytes_of_the_object_or_none(self, tail: bytes, size: int) -> None:
        """No header gives bytes outside the object."""
        for header in (tail, b"bytes=" + tail):
            try:
                wanted = requested(header, size)
            except Unsatisfiable:
                continue
            if wanted is not None:
                self.assertTrue(0 <= wanted.start < wanted.stop <= size)

    @given(st.integers(0, 20), st.none() | st.integers(0, 20), st.integers(1, 20))
    def test_ranges_pick_what_slices_pick(self, first: int, last: int | None, size: int) -> None:
        """The result is the same as that of slicing."""
        whole = bytes(range(size))
        header = b"bytes=%d-%b" % (first, b"" if last is None else b"%d" % last)
        expected = whole[first : None if last is None else last + 1]
        try:
            wanted = requested(header, size)
        except Unsatisfiable:
            self.assertEqual(expected, b"")
            return
        if wanted is None:
            assert last is not None
            self.assertGreater(first, last)
        else:
            self.assertEqual(whole[wanted.start : wanted.stop], expected)


class EntityTagTests(SynchronousTestCase):
    def test_if_range_matches_only_the_same_strong_tag(self) -> None:
        """Without the header the range counts; other tags and dates give all."""
        for header, matches in (
            (None, True),
            (TAG, True),
            (b' "abc"\t', True),
            (b'W/"abc"', False),
            (b'"abd"', False),
            (b"abc", False),
            (b"*", False),
            (b"", False),
            (b"Wed, 21 Oct 2015 07:28:00 GMT", False),
        ):
            self.assertIs(ranges.if_range_matches(header, TAG), matches, header)

    def test_if_none_match_finds_the_tag_in_lists(self) -> None:
        """It may be strong or weak, alone or among others, or a star."""
        for header, matches in (
            (None, False),
            (b"", False),
            (TAG, True),
            (b'W/"abc"', True),
            (b'"x", W/"abc" , "y"', True),
            (b" * ", True),
            (b'"x","y"', False),
            (b'"x, \\"abc', False),
            (b"abc", False),
        ):
            self.assertIs(ranges.if_none_match(header, TAG), matches, header)
