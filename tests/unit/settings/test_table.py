from __future__ import annotations

import contextlib
import io
import runpy
from operator import attrgetter
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.convert import convert_default
from ncps.settings.kinds.values import TEXT
from ncps.settings.report import effective, markdown, shown_value
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Status
from ncps.settings.table import TABLE, by_flag, known_keys
from tests.unit.settings.around import load_with, surroundings

_ROOT = Path(__file__).parents[3]
_DERIVED = {"config_file", "warnings", "origins", "given"}


def _leaves(value: object, prefix: str, known: set[str]) -> set[str]:
    found: set[str] = set()
    for field in attrs.fields(type(value)):  # type: ignore[arg-type]
        path = prefix + field.name
        inner = getattr(value, field.name)
        if attrs.has(type(inner)) and path not in known:
            found |= _leaves(inner, f"{path}.", known)
        else:
            found.add(path)
    return found


class TableTests(SynchronousTestCase):
    def test_names_are_unique(self) -> None:
        """No two settings share a flag, a variable or a key."""
        flags = [row.flag for row in TABLE] + [a.flag for r in TABLE for a in r.aliases if a.flag]
        variables = [row.environment for row in TABLE]
        keys = [row.key for row in TABLE if row.key]
        for names in (flags, variables, keys):
            self.assertEqual(len(names), len(set(names)))
        self.assertGreater(len(by_flag()), len(TABLE))
        self.assertIn("cache.database-url-file", known_keys())

    def test_every_setting_is_explained(self) -> None:
        """Each setting has a sentence, and its default can be read back."""
        for row in TABLE:
            self.assertTrue(row.help.endswith("."), row.flag)
            default = row.default(surroundings()) if callable(row.default) else row.default
            if default != "":
                convert_default(row, default)

    def test_the_tree_has_what_the_table_has(self) -> None:
        """Each setting with an effect has one attribute in the tree, and no others exist."""
        active = {row.attribute for row in TABLE if row.status is Status.ACTIVE}
        found = _leaves(load_with(), "", active)
        self.assertEqual(found - _DERIVED, active - _DERIVED)
        for name in active:
            attrgetter(name)(load_with())

    def test_every_name_of_the_go_program_is_there(self) -> None:
        """Flags, variables and keys of existing configurations are known."""
        names = {(row.flag, row.environment, row.key) for row in TABLE}
        for expected in (
            ("cache-upstream-url", "CACHE_UPSTREAM_URLS", "cache.upstream.urls"),
            ("cache-lru-schedule-timezone", "CACHE_LRU_SCHEDULE_TZ", "cache.lru.timezone"),
            ("cache-trusted-upload-key", "CACHE_TRUSTED_UPLOAD_KEYS", "cache.trusted-upload-keys"),
            ("netrc-file", "NETRC_FILE", "cache.netrc-file"),
            ("cache-lock-download-ttl", "CACHE_LOCK_DOWNLOAD_TTL", "cache.lock.download-lock-ttl"),
            ("otel-grpc-url", "OTEL_GRPC_URL", "opentelemetry.grpc-url"),
            ("cache-database-url", "CACHE_DATABASE_URL", "cache.database-url"),
        ):
            self.assertIn(expected, names)


class ReportTests(SynchronousTestCase):
    def test_the_documentation_is_current(self) -> None:
        """docs/settings.md is up to date; `python -m ncps.settings` renews it."""
        self.assertEqual((_ROOT / "docs" / "settings.md").read_text(), markdown())

    def test_the_module_prints_the_documentation(self) -> None:
        """The command in the documentation prints it."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_module("ncps.settings.__main__")
        self.assertEqual(out.getvalue(), markdown())

    def test_values_are_shown_without_secrets(self) -> None:
        """Each value is shown with its origin, without credentials."""
        settings: Settings = load_with(
            {"cache-upstream-url": "http://me:hunter2@a?priority=3"}, LOG_LEVEL="warn"
        )
        shown = {key: (value, origin) for key, value, origin in effective(settings)}
        self.assertEqual(shown["log.level"], ("warn", "environment LOG_LEVEL"))
        self.assertEqual(
            shown["cache.upstream.urls"], ("http://a?priority=3", "flag --cache-upstream-url")
        )
        self.assertEqual(shown["server.idle-timeout"], ("2m", "default"))
        self.assertEqual(shown["cache.narinfo-memory-size"], ("64M", "default"))
        self.assertNotIn("hunter2", str(shown))

    def test_secrets_without_a_form_to_show_are_stars(self) -> None:
        """A secret is never printed."""
        token = next(row for row in TABLE if row.flag == "cache-get-token")
        self.assertIs(token.kind, TEXT)
        self.assertEqual(shown_value(token, "hunter2"), "***")
        self.assertEqual(shown_value(token, ""), "")
