"""The configurations in docs/high-availability.md and docs/compose.yaml can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.table import TABLE
from tests.unit.settings.around import load_with

DOCS = Path(__file__).parents[3] / "docs"


class DocumentTests(SynchronousTestCase):
    def block(self, language: str) -> str:
        """Return the code block of this language on the page."""
        page = (DOCS / "high-availability.md").read_text()
        self.assertEqual(1, page.count(f"```{language}\n"))
        return page.partition(f"```{language}\n")[2].partition("```")[0]

    def test_settings_of_the_page(self) -> None:
        """Its configuration file is valid, apart from the secret that it names."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        secret, file = directory / "secret", directory / "config.yaml"
        secret.write_text("sixteen characters and more\n")
        secret.chmod(0o600)
        text = self.block("yaml")
        self.assertIn("/run/secrets/ncps-cluster", text)
        file.write_text(text.replace("/run/secrets/ncps-cluster", str(secret)))
        found = load_with({"config": str(file)})
        self.assertEqual(
            ("redis", "http://10.0.0.7:8501", "nix-cache"),
            (found.cache.lock.backend, found.cluster.advertise_url, found.cache.storage.s3.bucket),
        )
        self.assertEqual((), found.warnings)

    def test_variables_of_the_compose_file(self) -> None:
        """They are ours, and valid for two replicas that differ only in their address."""
        services = self.compose()["services"]
        known = {setting.environment for setting in TABLE}
        addresses = set()
        for name in ("ncps-a", "ncps-b"):
            variables = services[name]["environment"]
            self.assertEqual(set(), set(variables) - known)
            found = load_with({}, **variables)
            self.assertEqual((), found.warnings)
            self.assertEqual(f"http://{name}:8501", found.cluster.advertise_url)
            self.assertEqual("redis", found.cache.lock.backend)
            addresses.add(found.cluster.advertise_url)
            del variables["CLUSTER_ADVERTISE_URL"]
        self.assertEqual(2, len(addresses))
        self.assertEqual(services["ncps-a"], services["ncps-b"])

    def test_load_balancer_of_the_compose_file(self) -> None:
        """It is the same as on the page, which the cluster tests run."""
        theirs = " ".join(self.compose()["configs"]["nginx"]["content"].split())
        ours = " ".join(self.block("nginx").split())
        for name, address in (("ncps-a:8501", "10.0.0.7:8501"), ("ncps-b:8501", "10.0.0.8:8501")):
            theirs = theirs.replace(name, address)
        self.assertEqual(ours, theirs)

    def compose(self) -> dict[str, Any]:
        """Return the compose file."""
        found: dict[str, Any] = yaml.safe_load((DOCS / "compose.yaml").read_text())
        return found
