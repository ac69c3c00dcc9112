"""Every stock Nix client fetches outputs of content-addressed derivations.

test_realisations has the clients.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.building import Building
from tests.e2e.daemon import Daemon, UpstreamCache
from tests.e2e.fileserver import FileServer
from tests.e2e.nixclient import NixClient

EXPRESSION = """\
let
  made = name: needs: derivation {
    inherit name needs;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo ${name} $needs > $out" ];
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
in
  made "second" (made "first" "")
"""
NOBODY = f"nobody.test-1:{'A' * 43}="
FEATURES = ("--option", "extra-experimental-features", "ca-derivations")


class ContentAddressed(Building):
    """Tests for every client."""

    def setUp(self) -> None:
        super().setUp()
        self.expression = self.directory / "expression.nix"
        self.expression.write_text(EXPRESSION)

    def built(self, client: NixClient, *options: str) -> tuple[str, bool]:
        """Build the second path; return it, and whether the client had to build anything."""
        printed = client.run(
            "nix-build",
            *(str(self.expression), "--no-out-link", *FEATURES, *self.build_options, *options),
        )
        path = printed.strip().splitlines()[-1]
        self.assertRegex(path, "^/nix/store/[0-9a-z]{32}-second$")
        return path, "building '" in printed

    def installed(self, url: str, *keys: str) -> tuple[str, bool]:
        """Build with a new client and one substituter."""
        trusted = ("--option", "trusted-public-keys", " ".join(keys))
        return self.built(self.builder(), "--option", "substituters", url, *trusted)

    def copy(self, client: NixClient, target: str) -> None:
        """Copy both paths and their realisations to a binary cache."""
        client.run(
            *("nix", "copy", "--to", target, "-f", str(self.expression)),
            *(*FEATURES, *self.build_options),
        )

    def exported(self, client: NixClient) -> tuple[FileServer, str, str]:
        """Build with a client that signs; return an upstream that has it, the path, and the key."""
        secret, public = self.directory / "secret", self.directory / "public"
        client.run(
            *("nix-store", "--generate-binary-cache-key", "builder.test-1"),
            *(str(secret), str(public)),
        )
        path, _ = self.built(client, "--option", "secret-key-files", str(secret))
        directory = self.fresh_directory("cache")
        self.copy(client, f"file://{directory}?compression=xz&secret-key={secret}")
        server = self.serve(directory)
        return server, path, public.read_text().strip()

    def serve(self, directory: Path) -> FileServer:
        server = FileServer(directory)
        server.start()
        self.addCleanup(server.stop)
        return server

    def upstream_of(self, daemon: Daemon) -> UpstreamCache:
        return UpstreamCache(daemon.url, daemon.public_key())

    def test_outputs_come_from_an_upstream_and_stay(self) -> None:
        """The second client builds nothing though the upstream is gone, nor behind two ncps."""
        server, path, key = self.exported(self.builder())
        daemon = self.daemon(server, public_key=key)
        self.assertEqual((path, False), self.installed(daemon.url, daemon.public_key()))
        self.assertEqual([], sorted(self.repeated_realisations(server)))
        server.stop()
        self.assertEqual((path, False), self.installed(daemon.url, daemon.public_key()))
        behind = Daemon(self.fresh_directory("ncps"), [self.upstream_of(daemon)])
        self.addCleanup(behind.kill)
        behind.start()
        self.assertEqual((path, False), self.installed(behind.url, behind.public_key()))

    def repeated_realisations(self, server: FileServer) -> list[str]:
        return [target for target in server.repeated() if "realisations/" in target]

    def test_unsigned_paths_are_built(self) -> None:
        """ncps does not serve a realisation without a trusted signature."""
        server, path, _ = self.exported(self.builder())
        daemon = self.daemon(server, public_key=NOBODY)
        self.assertEqual((path, True), self.installed(daemon.url, daemon.public_key()))


class Uploaded(ContentAddressed):
    """The same with uploads."""

    def test_uploads_are_for_everybody(self) -> None:
        """`nix copy` works twice in an outage; others build nothing, also after a rebuild."""
        directory = self.fresh_directory("empty")
        directory.mkdir()
        server = self.serve(directory)
        daemon = self.daemon(server, public_key=NOBODY, options=("--cache-allow-put-verb",))
        server.stop()
        maker = self.builder()
        path, _ = self.built(maker)
        for _ in range(2):
            self.copy(maker, f"{daemon.url}/upload?compression=zstd")
        self.assertEqual((path, False), self.installed(daemon.url, daemon.public_key()))
        self.lose_database(daemon)
        self.assertEqual((path, False), self.installed(daemon.url, daemon.public_key()))

    def lose_database(self, daemon: Daemon) -> None:
        """Stop, delete the catalog, rebuild it, and start."""
        daemon.stop()
        Path(daemon.directory / "catalog.sqlite").unlink()
        command = daemon.command()
        command[command.index("serve")] = "rebuild"
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        self.assertRegex(done.stdout, "[12] realisations recorded, 0 refused")
        daemon.start()
