"""Real Nix clients read logs and the files of store paths through ncps; test_extras has them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.bench import Bench
from tests.e2e.daemon import fetch
from tests.e2e.fileserver import FileServer
from tests.e2e.nixclient import NixError
from tests.system.program import run_ncps
from tests.waiting import wait_until

NOBODY = f"nobody.test-1:{'A' * 43}="
BUILD_ID = "ab" + "c" * 38
MEMBER = f"lib/debug/.build-id/ab/{'c' * 38}.debug"
SYMBOLS = b"\x7fELF" + bytes(range(256)) * 100
DERIVATION = 'derivation { name = "a+b=c?d"; system = "x86_64-linux"; builder = "/bin/sh"; }'
TEXT = "building\n\x1b[31mred\x1b[0m\n"
ARGUMENTS = "write-nar-listing=1&index-debug-info=true&compression=xz"


class Extras(Bench):
    """Tests for every client. All paths have content addresses and no signatures.

    :ivar cache: the files that Nix itself has written.
    """

    def setUp(self) -> None:
        super().setUp()
        self.maker = self.client()
        self.cache = self.directory / "cache"
        self.path = self.made("nix-store", "--add", str(self.tree()))
        self.drv = self.made("nix-instantiate", "-E", DERIVATION)
        self.maker.keep_log(self.drv, TEXT)
        to = ("--to", f"file://{self.cache}?{ARGUMENTS}")
        store = ("--store", str(self.maker.store))
        self.maker.run("nix", "copy", *store, *to, self.path)
        self.maker.run("nix", "copy", "--derivation", *store, *to, self.drv)
        self.maker.run("nix", "store", "copy-log", "--from", str(self.maker.store), *to, self.drv)
        self.server = FileServer(self.cache)
        self.server.start()
        self.addCleanup(self.server.stop)
        self.ncps = self.daemon(self.server, public_key=NOBODY)

    def made(self, applet: str, *arguments: str) -> str:
        """Run a program of the maker's and return the last store path in its output."""
        printed = self.maker.run(applet, "--store", str(self.maker.store), *arguments)
        return printed.split()[-1]

    def tree(self) -> Path:
        """Make a tree with a program, a link, odd names and symbols."""
        root = self.directory / "hello-debug"
        symbols = root / MEMBER
        symbols.parent.mkdir(parents=True)
        symbols.write_bytes(SYMBOLS)
        (root / "bin").mkdir()
        (root / "bin" / "x").write_bytes(b"#!x\n")
        (root / "bin" / "x").chmod(0o755)
        (root / 'é"\\\n name').write_bytes(b"hi")
        (root / "link").symlink_to("bin/x")
        (root / "empty").mkdir()
        return root

    def digest(self) -> str:
        return self.path.rpartition("/")[2][:32]

    def test_nix_reads_logs_and_files(self) -> None:
        """`nix log`, `nix store ls` and `nix store cat` work, and again without the upstream."""
        client = self.client()
        for _ in range(2):
            self.assertIn(TEXT, client.run("nix", "log", "--store", self.ncps.url, self.drv))
            names = client.run("nix", "store", "ls", "-R", "--store", self.ncps.url, self.path)
            self.assertIn("./bin/x", names)
            program = f"{self.path}/bin/x"
            shown = client.run("nix", "store", "cat", "--store", self.ncps.url, program)
            self.assertIn("#!x", shown)
            self.server.stop()
            client = self.client()

    def test_listing_and_link_are_those_that_nix_writes(self) -> None:
        """The extras that ncps makes from the NAR equal those of Nix."""
        digest = self.digest()
        listing, link = self.cache / f"{digest}.ls", self.cache / f"debuginfo/{BUILD_ID}.debug"
        ours = fetch(f"{self.ncps.url}/{digest}.narinfo").body.decode()
        (url,) = (line[5:] for line in ours.splitlines() if line.startswith("URL: "))
        fetch(f"{self.ncps.url}/{url}")
        wait_until(lambda: self.ncps.stored_nars() != [], "the NAR to be stored")
        wait_until(lambda: self._x_cache(digest) == "hit", "the listing to be made")
        self.server.stop()
        made = fetch(f"{self.ncps.url}/{digest}.ls").body
        self.assertEqual(json.loads(listing.read_bytes()), json.loads(made))
        if self.release_name == "trixie":
            self.assertEqual(listing.read_bytes(), made)
        where = f"{self.ncps.url}/debuginfo/{BUILD_ID}.debug"
        wait_until(lambda: fetch(where).status == 200, "the link to be made")
        found = json.loads(fetch(where).body)
        self.assertEqual(json.loads(link.read_bytes())["member"], found["member"])
        self.assertEqual(f"../{url}", found["archive"])
        self.assertEqual(SYMBOLS, fetch(f"{self.ncps.url}/buildid/{BUILD_ID}/debuginfo").body)

    def _x_cache(self, digest: str) -> str:
        return fetch(f"{self.ncps.url}/{digest}.ls").headers.get("X-Cache", "")

    def test_nix_uploads_a_log(self) -> None:
        """`nix store copy-log` uploads a log with a token; the same again succeeds, others fail."""
        self.server.stop()
        made = run_ncps(
            self.ncps,
            "token",
            "create",
            "--name",
            "ci",
            "--scope",
            "read,write",
            "--netrc",
            "127.0.0.1",
        )
        self.assertEqual(0, made.returncode, made.stderr)
        drv = self.made("nix-instantiate", "-E", DERIVATION.replace("c?d", "e?f"))
        self.maker.keep_log(drv, TEXT)
        words = ("nix", "store", "copy-log", "--from", str(self.maker.store))
        to = ("--to", f"{self.ncps.url}/upload", drv)
        with self.assertRaises(NixError):
            self.maker.run(*words, *to)
        netrc = self.maker.home / "netrc"
        netrc.write_text(made.stdout)
        for _ in range(2):
            self.maker.run(*words, *to, "--option", "netrc-file", str(netrc))
        name = drv.rpartition("/")[2]
        self.assertEqual(TEXT.encode(), fetch(f"{self.ncps.url}/log/{name}").body)
