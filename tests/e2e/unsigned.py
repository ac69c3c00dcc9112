"""Every stock Nix client installs unsigned paths.

Upstreams add wrong fields to signed ones; test_unsigned has the clients.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ncps.nix.hashes import sha256_of
from ncps.nix.nar import FILE_HEAD, file_tail
from ncps.nix.narinfo import NarInfo
from tests.e2e.bench import Bench, shared_cache, shared_closure
from tests.e2e.closure import tree_hash
from tests.e2e.daemon import Daemon, fetch
from tests.e2e.fileserver import FileServer
from tests.e2e.nixclient import NixError

NOBODY = f"nobody.test-1:{'A' * 43}="
ALGORITHMS = ("md5", "sha1", "sha256", "sha512")

IN_VAIN = (
    "Sig: {key}:AAAA",
    "Sig: {key}:",
    "Sig: {key}:!!!!",
    "Sig: {key}",
    "Deriver: nonsense",
    "System: \x1b[31m",
    "CA: nonsense",
    "CA: fixed:r:sha256:" + "0" * 52,
    "CA: fixed:sha256:" + "0" * 52,
    "CA: fixed:git:sha1:" + "0" * 32,
    "CA: text:md5:" + "0" * 26,
)
"""Lines that no signature covers. Because of each except the fourth and the sixth, some clients
refuse the whole path."""


def write_file_cache(directory: Path, base: str, text: str, references: list[str]) -> None:
    """Add a path of one file to a binary cache without signatures."""
    contents = text.encode()
    nar = FILE_HEAD + len(contents).to_bytes(8, "little") + contents + file_tail(len(contents))
    nar_hash = sha256_of(nar)
    (directory / f"{nar_hash.nix32}.nar").write_bytes(nar)
    (directory / f"{base[:32]}.narinfo").write_text(
        f"StorePath: /nix/store/{base}\nURL: {nar_hash.nix32}.nar\nCompression: none\n"
        f"NarHash: {nar_hash}\nNarSize: {len(nar)}\nReferences: {' '.join(references)}\n"
    )


class Unsigned(Bench):
    """Tests for every client."""

    def setUp(self) -> None:
        super().setUp()
        self.maker = self.client()
        self.sources = self.fresh_directory("sources")
        self.sources.mkdir()

    def made(self, applet: str, *arguments: str) -> str:
        """Run a program of the maker's and return the last store path in its output."""
        store = ("--store", str(self.maker.store))
        printed = self.maker.run(applet, *store, *arguments)
        return printed.strip().splitlines()[-1].strip('"')

    def make_paths(self) -> list[str]:
        """Make a path of each kind that Nix has."""
        file, tree = self.sources / "file", self.sources / "tree"
        file.write_text("a file\n" * 1000)
        (tree / "bin").mkdir(parents=True)
        (tree / "bin" / "run").write_text("#!/bin/sh\n")
        (tree / "bin" / "run").chmod(0o755)
        (tree / "link").symlink_to("bin/run")
        paths = []
        for algorithm in ALGORITHMS:
            paths.append(self.made("nix-store", "--add-fixed", algorithm, str(file)))
            paths.append(self.made("nix-store", "--add-fixed", algorithm, "--recursive", str(tree)))
        expression = self.sources / "texts.nix"
        expression.write_text(
            'let a = builtins.toFile "a" "alone"; b = builtins.toFile "b" "has ${a}";\n'
            'in builtins.toFile "c" "has ${b} and ${a}"\n'
        )
        arguments = ("--eval", "--strict", "--read-write-mode", str(expression))
        paths.append(self.made("nix-instantiate", *arguments))
        return [*paths, *self.make_paths_that_refer_to_themselves()]

    def make_paths_that_refer_to_themselves(self) -> list[str]:
        """Make two paths that refer to themselves; one also refers to the other."""
        cache = self.fresh_directory("cache")
        cache.mkdir()
        (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
        one, two = "0" * 31 + "1-one", "0" * 31 + "2-two"
        write_file_cache(cache, one, f"/nix/store/{one}, /nix/store/{one}", [one])
        write_file_cache(cache, two, f"/nix/store/{two}, /nix/store/{one}", [two, one])
        client, store = self.maker, str(self.maker.store)
        client.run(
            *("nix", "copy", "--no-check-sigs", "--from", f"file://{cache}"),
            *("--to", store, f"/nix/store/{two}"),
        )
        told = client.run(
            "nix", "store", "make-content-addressed", "--store", store, f"/nix/store/{two}"
        )
        return sorted(set(re.findall(r"to '(/nix/store/[^']*-(?:one|two))'", told)))

    def export(self, paths: list[str]) -> FileServer:
        """Start an upstream with these paths and without a key."""
        directory = self.fresh_directory("unsigned")
        target = f"file://{directory}?compression=xz"
        self.maker.run("nix", "copy", "--from", str(self.maker.store), "--to", target, *paths)
        return self.serve(directory)

    def serve(self, directory: Path) -> FileServer:
        server = FileServer(directory)
        server.start()
        self.addCleanup(server.stop)
        return server

    def arrive(self, daemon: Daemon, paths: list[str]) -> None:
        """Install paths with a new client through ncps and check all of them."""
        client = self.client()
        client.install(daemon.url, [daemon.public_key()], *paths)
        client.verify([daemon.public_key()], *paths)
        for path in {needed for one in paths for needed in self.maker.closure(one)}:
            ours, theirs = client.real_path(path), self.maker.real_path(path)
            self.assertEqual(tree_hash(theirs), tree_hash(ours), path)
            narinfo = fetch(f"{daemon.url}/{path[11:43]}.narinfo")
            names = [signature.name for signature in NarInfo.parse(narinfo.body).signatures]
            self.assertEqual([daemon.public_key().partition(":")[0]], names)

    def rebuild(self, daemon: Daemon) -> str:
        """Delete the catalog and rebuild it; the daemon must not run."""
        (daemon.directory / "catalog.sqlite").unlink()
        command = daemon.command()
        command[command.index("serve")] = "rebuild"
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def test_unsigned_paths_of_every_kind_arrive(self) -> None:
        """Cold, without the upstream, and from a catalog that was rebuilt from the store."""
        paths = self.make_paths()
        self.assertEqual(11, len(paths))
        server = self.export(paths)
        daemon = self.daemon(server, public_key=NOBODY)
        self.arrive(daemon, paths)
        self.assertEqual({}, server.repeated())
        server.stop()
        self.arrive(daemon, paths)
        daemon.stop()
        self.assertIn("13 narinfos and 7 NARs recorded", self.rebuild(daemon))
        daemon.start()
        self.arrive(daemon, paths)

    def test_false_facts_about_unsigned_paths_are_refused(self) -> None:
        """Another NAR with otherwise true facts, and another NarHash, are refused."""
        paths = self.make_paths()[:2]
        server = self.export(paths)
        for path, other in (paths, paths[::-1]):
            narinfo, stranger = (
                NarInfo.parse((server.root / f"{one[11:43]}.narinfo").read_bytes())
                for one in (path, other)
            )
            lines = narinfo.render().decode().splitlines()
            rest = [line for line in lines if line.startswith(("StorePath", "References", "CA"))]
            told = stranger.render().decode().splitlines()
            false = [line for line in told if line.startswith(("URL", "Compr", "File", "Nar"))]
            (server.root / f"{path[11:43]}.false").write_text("\n".join([*rest, *false]) + "\n")
        for path in paths:
            name = server.root / f"{path[11:43]}.narinfo"
            shutil.move(name.with_suffix(".false"), name)
        daemon = self.daemon(server, public_key=NOBODY)
        for path in paths:
            with self.assertRaises(NixError):
                self.client().install(daemon.url, [daemon.public_key()], path)

    def test_unsigned_fields_spoil_no_signed_path(self) -> None:
        """Lines that make a client refuse a path are not passed on."""
        name = shared_closure().public_key.partition(":")[0]
        directory = self.fresh_directory("signed")
        shutil.copytree(shared_cache("zstd").directory, directory)
        files = sorted(directory.glob("*.narinfo"))
        self.assertGreaterEqual(len(files), len(IN_VAIN))
        for number, file in enumerate(files):
            line = IN_VAIN[number % len(IN_VAIN)].format(key=name)
            file.write_text(f"{line}\n{file.read_text()}")
        self.install(self.daemon(self.serve(directory)))
