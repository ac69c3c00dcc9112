"""Faults of upstreams with NARs: a resume, a fetch elsewhere, or a visible cut."""

from __future__ import annotations

from functools import partial

from tests.e2e.daemon import Daemon
from tests.system.faults import (
    Chunked,
    Claim,
    Cut,
    Fault,
    From,
    GarbageBody,
    Hangup,
    Html,
    Long,
    NoLength,
    NoRanges,
    Only,
    Raw,
    Redirect,
    Short,
    Silence,
    Stall,
    Status,
    WrongBytes,
    WrongRange,
)
from tests.system.stage import Stage
from tests.system.wire import Answer, Exchange, ask
from tests.waiting import wait_until

SIZE = 600_000
MIDDLE = 300_000


class NarStage(Stage):
    """One path with a NAR of some size."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.cache.add(SIZE, compression="xz")

    def assert_recovers(self, *faults: Fault) -> Daemon:
        """Check that the NAR arrives complete from the one upstream, and is stored."""
        origin = self.mounted(*faults)
        daemon = self.daemon(origin)
        self.assert_served(daemon, self.path)
        self.wait_until_stored(daemon, self.path)
        return daemon

    def assert_elsewhere(self, *faults: Fault, is_asked_elsewhere: bool = True) -> Daemon:
        """Check that the next upstream delivers the NAR that the first one cannot."""
        bad, good = self.mounted(*faults), self.mounted()
        daemon = self.daemon(bad, good)
        self.assert_served(daemon, self.path)
        self.wait_until_stored(daemon, self.path)
        self.assertEqual(is_asked_elsewhere, bool(good.gets(self.path.nar_target)))
        return daemon

    def assert_broken(
        self, *faults: Fault, reason: str, told: tuple[str, ...] = ("download of", "failed")
    ) -> Answer:
        """Check that no answer looks complete, nothing is stored, and the next try succeeds."""
        origin = self.mounted(*faults)
        daemon = self.daemon(origin)
        target = self.nar_target(daemon, self.path)
        answer = self.ask(daemon, target)
        self.assertFalse(answer.whole and answer.status == 200, "it looks whole")
        self.wait_for_log(daemon, *told, reason)
        self.assertNotIn("its narinfo is wrong", daemon.log)
        self.assertEqual([], daemon.stored_nars())
        self.cache.mount(origin)
        wait_until(lambda: self._is_whole(daemon), "the recovery", daemon=daemon)
        return answer

    def _is_whole(self, daemon: Daemon) -> bool:
        narinfo = self.narinfo(daemon, self.path)
        if narinfo.status != 200:
            return False
        answer = self.ask(daemon, "/" + narinfo.fields["URL"])
        return answer.status == 200 and answer.whole and answer.body == self.path.file


class ResumeTests(NarStage):
    """A cut upstream is resumed from the byte it was cut at."""

    def test_reset_is_resumed(self) -> None:
        """The client does not notice a reset in the middle, and no byte is fetched twice."""
        origin = self.mounted(Only(Cut(MIDDLE, reset=True), 1))
        daemon = self.daemon(origin)
        self.assert_served(daemon, self.path)
        self.wait_until_stored(daemon, self.path)
        first, second = origin.visits(self.path.nar_target)
        self.assertIsNone(first.request.range)
        assert second.request.range is not None
        start = int(second.request.range.removeprefix("bytes=").removesuffix("-"))
        self.assertGreater(start, 0)
        self.assertEqual(len(self.path.file), start + second.sent)

    def test_many_cuts_are_resumed(self) -> None:
        """ncps resumes an upstream that cuts every hundred kilobytes, until the NAR is complete."""
        self.assert_recovers(Cut(100_000))

    def test_stall_is_resumed(self) -> None:
        """ncps asks an upstream that stalls in the middle again for the rest."""
        self.assert_recovers(Only(Stall(MIDDLE), 1))

    def test_upstream_without_ranges_starts_over(self) -> None:
        """If an upstream ignores ranges, ncps skips the bytes that it has."""
        self.assert_recovers(Only(Cut(MIDDLE), 1), NoRanges())

    def test_end_without_length_is_noticed(self) -> None:
        """ncps resumes a body without length that was cut in the middle."""
        self.assert_recovers(Only(Cut(MIDDLE), 1), NoLength())

    def test_chunked_body_arrives(self) -> None:
        """ncps resumes a body in chunks that was cut in the middle."""
        self.assert_recovers(Only(Cut(MIDDLE), 1), Chunked())

    def test_hang_up_before_the_head_is_tried_again(self) -> None:
        """After a connection closed without an answer, ncps tries again."""
        self.assert_recovers(Only(Hangup(reset=True), 1))

    def test_server_error_once_is_tried_again(self) -> None:
        """After a single 500 ncps tries again."""
        self.assert_recovers(Only(Status(500), 1))

    def test_redirect_is_followed(self) -> None:
        """A redirected NAR arrives."""
        origin, storage = self.mounted(), self.mounted()
        origin.serve(self.path.nar_target, b"", Redirect(storage.url + self.path.nar_target))
        self.assert_served(self.daemon(origin), self.path)


class ElsewhereTests(NarStage):
    """The next upstream continues where one fails, at the next byte."""

    def test_broken_for_good_in_the_middle(self) -> None:
        """When an upstream dies in the middle, the next one continues at that byte."""
        bad, good = self.mounted(Stall(MIDDLE)), self.origin()
        good.serve(f"/{self.path.digest}.narinfo", self.path.narinfo())
        daemon = self.daemon(bad, good)
        served = self.in_background(partial(self.assert_served, daemon, self.path))
        bad.wait_for_stall(self.path.nar_target)
        self.cache.mount(good)  # not before: ncps asks there, too, when a head is late
        bad.stop()
        served.result()
        ranges = [visit.request.range or "" for visit in good.visits(self.path.nar_target)]
        self.assertRegex(ranges[-1], r"^bytes=[1-9][0-9]*-$", ranges)
        self.wait_for_log(daemon, "failed for", f"127.0.0.1:{bad.port}")

    def test_missing_nar(self) -> None:
        """A NAR that is 404 at the upstream of its narinfo is fetched from the next one."""
        self.assert_elsewhere(Status(404))

    def test_server_error(self) -> None:
        """A NAR that is 500 at the upstream of its narinfo is fetched from the next one."""
        self.assert_elsewhere(Status(500))

    def test_silence(self) -> None:
        """A NAR whose upstream does not answer is fetched from the next one."""
        self.assert_elsewhere(Silence())

    def test_stall(self) -> None:
        """A NAR whose upstream stalls at the same byte for ever is fetched from the next one."""
        self.assert_elsewhere(Stall(0))

    def test_web_page(self) -> None:
        """ncps does not accept a web page in place of a NAR."""
        self.assert_elsewhere(Html())

    def test_garbage(self) -> None:
        """ncps does not accept bytes that are not HTTP."""
        self.assert_elsewhere(Raw(b"\x00\x01\x02\xff" * 1000 + b"\r\n\r\n"))

    def test_garbage_after_the_head(self) -> None:
        """ncps serves no garbage after a good head: the rest or all comes from elsewhere."""
        bad, good = self.mounted(GarbageBody()), self.mounted()
        daemon = self.daemon(bad, good)
        target = self.nar_target(daemon, self.path)
        answer = self.ask(daemon, target)
        # The connection is cut if the client had garbage before the verdict; else all is right.
        self.assertEqual(answer.whole, answer.body == self.path.file)
        self.wait_until_stored(daemon, self.path)
        self.assert_served(daemon, self.path)

    def test_short_object(self) -> None:
        """A NAR that is shorter than its FileSize at one upstream is fetched from the next."""
        self.assert_elsewhere(Short(MIDDLE))

    def test_long_object(self) -> None:
        """A NAR that is longer than its FileSize at one upstream is fetched from the next."""
        self.assert_elsewhere(Long())

    def test_wrong_range(self) -> None:
        """ncps does not use a resumed answer that starts at another byte."""
        self.assert_elsewhere(Only(Cut(MIDDLE), 1), From(WrongRange(), 2))

    def test_other_file_of_the_next_upstream_is_not_spliced_in(self) -> None:
        """ncps never mixes another compression of the same path into a file."""
        sick = [self.mounted(Only(Cut(MIDDLE), 1), From(Hangup(), 2)) for _ in range(2)]
        other = type(self.cache)().add(SIZE, compression="zstd")
        self.assertEqual(self.path.nar, other.nar)
        good = self.origin()
        small = self.daemon(sick[0], good)
        large = self.daemon(sick[1], good, options=["--cache-download-small-size=0"])
        targets = [self.nar_target(daemon, self.path) for daemon in (large, small)]
        # Only now: if its narinfo came first, the client would ask for its file instead.
        good.serve(f"/{other.digest}.narinfo", other.narinfo())
        good.serve(other.nar_target, other.file)
        answer = self.ask(large, targets[0])
        self.assertFalse(answer.whole)
        self.assertTrue(self.path.file.startswith(answer.body))
        # A client of a small NAR has no byte of the first file yet, unless that was slow to come.
        # The other file cannot continue it, because its narinfo says xz.
        answer = self.ask(small, targets[1])
        if answer.status != 503:
            self.assertEqual((200, False), (answer.status, answer.whole))
            self.assertTrue(self.path.file.startswith(answer.body))
        self.assertEqual([], large.stored_nars() + small.stored_nars())


class BrokenTests(NarStage):
    """Without a good upstream the client sees a cut connection, and nothing is stored."""

    def test_wrong_hash(self) -> None:
        """Wrong bytes of the right number never look complete and are never published."""
        self.assert_broken(WrongBytes(MIDDLE), reason="bad xz data")

    def test_no_right_rest_to_wrong_bytes(self) -> None:
        """A client cut off after wrong bytes gets the complete file; others get the rest."""
        late = ("--cache-verify-while-arriving=false",)  # else xz is found wrong before it is sent
        origin = self.mounted(Only(WrongBytes(MIDDLE), 1), Only(Stall(SIZE - 100_000), 1))
        daemon = self.daemon(origin, options=late)
        target = self.nar_target(daemon, self.path)
        first = Exchange(daemon.port, target)
        first.read(MIDDLE + 1)  # before the rest arrives, and with it the end of the connection
        origin.release()
        cut = first.finish()
        self.assertFalse(cut.whole)
        self.assertGreater(len(cut.body), MIDDLE)
        rest = {"Range": f"bytes={len(cut.body)}-"}
        wait_until(  # the failed download may not have ended yet
            lambda: ask(daemon.port, target, headers=rest).status != 502, "another attempt"
        )
        for _ in range(2):
            again = ask(daemon.port, target, headers=rest)
            self.assertEqual((200, True), (again.status, again.whole))
            self.assertEqual(self.path.file, again.body)
            self.assertEqual("none", again.headers["accept-ranges"])
        other = ask(daemon.port, target, headers=rest, source="127.0.0.2")
        self.assertEqual((206, True), (other.status, other.whole))
        self.assertEqual(self.path.file[len(cut.body) :], other.body)
        self.assertEqual(200, self.ask(daemon, target).status)  # or of another client
        self.assertEqual(200, ask(daemon.port, target, headers=rest).status)

    def test_wrong_last_byte(self) -> None:
        """Wrong bytes at the very end never look complete either."""
        self.assert_broken(WrongBytes(len(self.path.file) - 1, b"\xee"), reason="bad xz data")

    def test_short(self) -> None:
        """A NAR shorter than its FileSize never looks complete."""
        self.assert_broken(Short(MIDDLE), reason="bytes instead of")

    def test_long(self) -> None:
        """A NAR longer than its FileSize never looks complete."""
        self.assert_broken(Long(), reason="bytes instead of")

    def test_short_in_chunks(self) -> None:
        """A NAR without length that ends early never looks complete."""
        self.assert_broken(Short(MIDDLE), Chunked(), reason="")

    def test_long_in_chunks(self) -> None:
        """A NAR without length that is too long never looks complete."""
        self.assert_broken(Long(), Chunked(), reason="longer")

    def test_endless_length(self) -> None:
        """ncps notices a Content-Length that is too large."""
        self.assert_broken(Claim(10**15), reason="not kept", told=("passed through",))

    def test_cut_for_ever(self) -> None:
        """If an upstream never gets beyond a byte, the connection is cut and does not hang."""
        self.assert_broken(Only(Cut(MIDDLE), 1), From(Hangup(), 2), reason="")

    def test_stalled_for_ever(self) -> None:
        """If an upstream stalls again and again, the connection is cut and does not hang."""
        self.assert_broken(Only(Stall(MIDDLE), 1), From(Silence(), 2), reason="")

    def test_web_page(self) -> None:
        """The answer for a web page in place of a NAR is 502."""
        self.assertEqual(502, self.assert_broken(Html(), reason="web page").status)

    def test_server_error(self) -> None:
        """The answer for an upstream with 500 is 503 with Retry-After, before any byte."""
        answer = self.assert_broken(Status(500), reason="status 500")
        self.assertEqual(503, answer.status)
        self.assertIn("retry-after", answer.headers)

    def test_silence(self) -> None:
        """The answer for a silent upstream is 504 with Retry-After, before any byte."""
        answer = self.assert_broken(Silence(), reason="no answer within")
        self.assertEqual(504, answer.status)
        self.assertIn("retry-after", answer.headers)

    def test_wrong_nar_inside_a_right_file(self) -> None:
        """ncps refuses a zstd file with the right FileHash and another NAR inside (P7)."""
        other = self.cache.add(SIZE, compression="zstd")
        origin = self.mounted()
        path = self.cache.add(SIZE, compression="zstd")
        narinfo = path.narinfo(
            URL=other.url,
            FileHash=dict(other.fields())["FileHash"],
            FileSize=dict(other.fields())["FileSize"],
        )
        origin.serve(f"/{path.digest}.narinfo", narinfo)
        origin.serve(other.nar_target, other.file)
        daemon = self.daemon(origin)
        answer = self.ask(daemon, self.nar_target(daemon, path))
        self.assertFalse(answer.whole and answer.status == 200)
        self.wait_for_log(daemon, "download of", "NAR hash")
        self.assertEqual([], daemon.stored_nars())


class MissingTests(NarStage):
    """No upstream has the NAR of a narinfo."""

    def test_missing_nar_is_404_and_the_narinfo_is_fetched_again(self) -> None:
        """The NAR is 404, and its narinfo is not a hit any more."""
        origin = self.mounted()
        origin.withdraw(self.path.nar_target)
        daemon = self.daemon(origin)
        target = self.nar_target(daemon, self.path)
        self.assertEqual("hit", self.narinfo(daemon, self.path).outcome)
        self.assertEqual(404, self.ask(daemon, target).status)
        again = self.narinfo(daemon, self.path)
        self.assertEqual((200, "miss"), (again.status, again.outcome))
        # Once for each miss, and once more in case the upstream has only forgotten its NAR.
        self.assertEqual(3, origin.gets(f"/{self.path.digest}.narinfo"))
        self.cache.mount(origin)
        self.assert_served(daemon, self.path)

    def test_missing_nar_on_head_is_404(self) -> None:
        """HEAD of a NAR that no upstream has is 404, too."""
        origin = self.mounted()
        origin.withdraw(self.path.nar_target)
        daemon = self.daemon(origin)
        target = self.nar_target(daemon, self.path)
        self.assertEqual(404, self.ask(daemon, target, method="HEAD").status)

    def test_narinfo_is_withdrawn_when_its_nar_has_gone_everywhere(self) -> None:
        """When the upstream has removed NAR and narinfo, both become 404."""
        origin = self.mounted()
        daemon = self.daemon(origin)
        target = self.nar_target(daemon, self.path)
        origin.withdraw(self.path.nar_target)
        origin.withdraw(f"/{self.path.digest}.narinfo")
        self.assertEqual(404, self.ask(daemon, target).status)
        self.assertEqual(404, self.narinfo(daemon, self.path).status)

    def test_lost_file_is_fetched_again(self) -> None:
        """ncps fetches a stored NAR with a missing file again, and the client notices nothing."""
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, self.path)
        self.wait_until_stored(daemon, self.path)
        (file,) = daemon.stored_nars()
        file.unlink()
        self.assert_served(daemon, self.path)
        self.wait_for_log(daemon, "is missing", "fetched again")
        self.wait_until_stored(daemon, self.path)

    def test_cut_off_file_is_fetched_again(self) -> None:
        """ncps sets a stored NAR with a truncated file aside and fetches it again."""
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, self.path)
        self.wait_until_stored(daemon, self.path)
        (file,) = daemon.stored_nars()
        file.chmod(0o600)
        with file.open("r+b") as opened:
            opened.truncate(MIDDLE)
        self.assert_served(daemon, self.path)
        self.wait_for_log(daemon, "is damaged", "fetched again")
