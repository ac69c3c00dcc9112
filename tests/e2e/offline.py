"""Every stock Nix client works while no upstream can be reached.

test_offline has the clients.
"""

from __future__ import annotations

from pathlib import Path

from ncps.nix.narinfo import NarInfo
from tests.e2e.bench import shared_closure
from tests.e2e.building import Building
from tests.e2e.daemon import Daemon, fetch
from tests.e2e.nixclient import NixClient, NixError
from tests.waiting import wait_until

EXPRESSION = """\
let
  made = name: text: derivation {{
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo ${{text}} > $out" ];
  }};
  alone = made "alone" "made here";
  stored = builtins.storePath "{stored}";
  shown = builtins.storePath "{shown}";
in {{
  inherit alone;
  both = made "both" "${{stored}} ${{alone}}";
  half = made "half" "${{stored}} ${{shown}}";
}}
"""


class Offline(Building):
    """Tests for every client."""

    def build(
        self,
        daemon: Daemon,
        expression: Path,
        *attributes: str,
        client: NixClient | None = None,
    ) -> str:
        """Build with a client whose only substituter is ncps; return its output.

        :param client: by default a new one.
        """
        return (client or self.builder()).run(
            "nix-build",
            *(str(expression), "--no-out-link"),
            *(word for attribute in attributes for word in ("-A", attribute)),
            *self.build_options,
            *("--option", "substituters", daemon.url),
            *("--option", "trusted-public-keys", daemon.public_key()),
        )

    def test_stored_paths_are_installed_and_the_rest_is_built(self) -> None:
        """A derivation that no upstream has builds, alone and with a stored path.

        One that needs a path that is not stored fails by a message that names it, also at a client
        that remembers the path's narinfo, and builds once the upstream is back.
        """
        server = self.file_server("zstd")
        daemon = self.daemon(server)
        closure = shared_closure()
        stored = next(path for path in closure.paths if path.endswith("-tree"))
        shown = next(path for path in closure.paths if path.endswith("-large1"))
        self.client().install(daemon.url, [daemon.public_key()], stored)
        narinfo = fetch(f"{daemon.url}/{shown[11:43]}.narinfo")
        remembering = self.builder()
        remembering.run("nix", "path-info", "--store", daemon.url, shown)
        nar = f"{daemon.url}/{NarInfo.parse(narinfo.body).url}"
        expression = self.directory / "offline.nix"
        expression.write_text(EXPRESSION.format(stored=stored, shown=shown))
        server.stop()
        for attributes in (["alone"], ["both"]):
            printed = self.build(daemon, expression, *attributes)
            self.assertIn(f"-{attributes[0]}", printed.strip().splitlines()[-1])
        target = f"{daemon.url}/{closure.root[11:43]}.narinfo"
        absent = fetch(target)
        self.assertEqual((404, "away"), (absent.status, absent.headers.get("X-Cache")))
        hidden = fetch(f"{daemon.url}/{shown[11:43]}.narinfo")
        self.assertEqual((404, "away"), (hidden.status, hidden.headers.get("X-Cache")))
        answer = fetch(nar)
        self.assertEqual(503, answer.status, answer.body)
        self.assertIn("Retry-After", answer.headers)
        for client, words in ((None, ()), (remembering, ("HTTP error 503", nar))):
            with self.assertRaises(NixError) as caught:
                self.build(daemon, expression, "half", client=client)
            for word in (*words, shown):
                self.assertIn(word, str(caught.exception))
        server.start()
        wait_until(lambda: fetch(target).status == 200, "the upstream", daemon=daemon)
        self.assertIn("-half", self.build(daemon, expression, "half").strip().splitlines()[-1])
