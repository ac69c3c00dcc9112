"""A stock Nix client reads a closed cache with its netrc file."""

from __future__ import annotations

from tests.e2e.bench import Bench, shared_closure
from tests.e2e.nixclient import NixError
from tests.system.program import run_ncps


class Closed:
    """Tests for every client."""

    def test_a_token_in_the_netrc_file(self: Bench) -> None:  # type: ignore[misc]
        """The line of `ncps token create --netrc` is enough; without it, Nix gets nothing."""
        daemon = self.daemon(self.file_server("zstd"), options=("--auth-reads", "token"))
        key = run_ncps(daemon, "keys", "show").stdout.split()[0]
        made = run_ncps(daemon, "token", "create", "--name", "laptop", "--netrc", "127.0.0.1")
        self.assertEqual(0, made.returncode, made.stderr)
        client, path = self.client(), shared_closure().paths[0]
        with self.assertRaises(NixError):
            client.install(daemon.url, [key], path)
        netrc = client.home / "netrc"
        netrc.write_text(made.stdout)
        with (client.home.parent / "conf" / "nix.conf").open("a") as configuration:
            configuration.write(f"netrc-file = {netrc}\n")
        client.install(daemon.url, [key], path)
        self.assertIn(path, client.closure(path))


class OldNixTests(Closed, Bench):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(Closed, Bench):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
