"""A job of CI uploads with the token of its issuer as the password of its netrc file."""

from __future__ import annotations

import time

from tests.e2e.bench import Bench, shared_closure
from tests.e2e.nixclient import NixError
from tests.fakes.issuer import AUDIENCE, discovery, keys, of_github, public_jwk, sign
from tests.system.origin import Origin
from tests.system.program import run_ncps

REPOSITORY = "octo-org/octo-repo"


class Issued:
    """Tests for every client."""

    def test_a_job_uploads_and_reads(self: Bench) -> None:  # type: ignore[misc]
        """`nix copy` sends the token by Basic; a token of another repository is refused."""
        issuer = Origin()
        issuer.start()
        self.addCleanup(issuer.stop)
        issuer.serve("/.well-known/openid-configuration", discovery(issuer.url))
        issuer.serve("/keys", keys(public_jwk("RS256", "key-1")))
        daemon = self.daemon(
            self.file_server("zstd"),
            options=(
                *("--auth-reads", "token", "--auth-oidc-issuer", issuer.url),
                *("--auth-oidc-audience", AUDIENCE),
                *("--auth-oidc-rule", f"scope=read,write; repository={REPOSITORY}"),
            ),
        )
        client = self.client()
        netrc = client.home / "netrc"
        with (client.home.parent / "conf" / "nix.conf").open("a") as configuration:
            configuration.write(f"netrc-file = {netrc}\n")

        def identify(repository: str) -> None:
            claims = of_github(time.time(), iss=issuer.url, repository=repository)
            netrc.write_text(f"machine 127.0.0.1 login ci password {sign(claims)}\n")

        path = shared_closure().root
        store = ("--store", str(shared_closure().client.store))
        # By default Nix uses xz, for a minute.
        upload = ("copy", "--to", f"{daemon.url}/upload?compression=zstd", path)
        identify("evil/repo")
        with self.assertRaises(NixError):
            client.run("nix", *store, *upload)
        identify(REPOSITORY)
        client.run("nix", *store, *upload)
        key = run_ncps(daemon, "keys", "show").stdout.split()[0]
        client.install(daemon.url, [key], path)
        client.verify([key], path)
        self.assertNotIn("eyJ", daemon.log)


class OldNixTests(Issued, Bench):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(Issued, Bench):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
