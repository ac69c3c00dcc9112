"""Calls that never wait: the file systems of this machine, and reads from memory."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.nowait import bytes_now, file_system_of, is_local, open_now

MOUNTS = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:40 / /srv/nar rw - nfs4 server:/nar rw
31 30 0:41 / /srv/nar/fast\040disk rw,noatime master:3 - xfs /dev/sdb rw
32 21 0:42 / /srv/twice rw - tmpfs tmpfs rw
33 21 0:43 / /srv/twice rw - fuse.sshfs host: rw
""".strip()


class FileSystemTests(SynchronousTestCase):
    def test_the_deepest_and_last_mount_counts(self) -> None:
        """The last mount above a directory counts, also with a strange name."""
        mounts = Path(self.mktemp())
        mounts.write_text(MOUNTS)
        for path, kind in {
            "/": "ext4",
            "/srv/narrow": "ext4",
            "/srv/nar/x": "nfs4",
            "/srv/nar/fast disk": "xfs",
            "/srv/twice/y/z": "fuse.sshfs",
        }.items():
            self.assertEqual(file_system_of(Path(path), mounts), kind)

    def test_an_unknown_file_system_is_left_to_threads(self) -> None:
        """Without /proc, and on unknown file systems, threads make all calls."""
        self.assertEqual(file_system_of(Path("/"), Path("/nonexistent")), "")
        self.assertFalse(is_local(Path("/proc")))


class NowTests(SynchronousTestCase):
    def test_a_file_in_memory(self) -> None:
        """A new file is opened and read from memory, also in parts and at its end."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(b"some bytes")
        path.read_bytes()
        fd = open_now(bytes(path))
        assert fd is not None
        self.addCleanup(os.close, fd)
        self.assertEqual(bytes_now(fd, 4, 5), b"byte")
        self.assertEqual(bytes_now(fd, 4, 10), b"")
        self.assertFalse(os.get_inheritable(fd))

    def test_a_file_that_cannot_be_opened(self) -> None:
        """A failed call raises no error: a thread finds the reason."""
        self.assertIsNone(open_now(b"/nonexistent/file"))
        self.assertIsNone(open_now(b"/proc/self/mem/x"))
