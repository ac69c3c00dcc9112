"""Our module of NixOS: its files can be read, and its unit follows each set of options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.table import TABLE
from tests.nixos.evaluating import (
    CREDENTIALS,
    HERE,
    KEPT,
    ROOT,
    Evaluated,
    Unit,
    nix_instantiate,
    of_nixpkgs,
    ours,
    unit_of,
    written,
)

FILES: Final = (
    ROOT / "flake.nix",
    *sorted((ROOT / "nix").glob("*.nix")),
    *sorted(HERE.glob("*.nix")),
)

LOWERING: Final = ["setpriority", "sched_setscheduler"]
"""System calls that let an unprivileged process only lower its priority."""

NIXPKGS: Final[dict[str, Any]] = {
    "CapabilityBoundingSet": "",
    "DeviceAllow": [""],
    "DevicePolicy": "closed",
    "LockPersonality": True,
    "MemoryDenyWriteExecute": True,
    "NoNewPrivileges": True,
    "PrivateDevices": True,
    "PrivateMounts": True,
    "PrivateTmp": True,
    "PrivateUsers": True,
    "ProcSubset": "pid",
    "ProtectClock": True,
    "ProtectControlGroups": True,
    "ProtectHome": True,
    "ProtectHostname": True,
    "ProtectKernelLogs": True,
    "ProtectKernelModules": True,
    "ProtectKernelTunables": True,
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": ["AF_INET", "AF_INET6", "AF_UNIX"],
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "SystemCallArchitectures": "native",
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "UMask": "0077",
}
"""Directives that the module of nixpkgs lacks or has less strict, and a UMask stricter than its
0066."""

PLACES: Final = {
    "ConfigurationDirectory",
    "ConfigurationDirectoryMode",
    "Environment",
    "ExecReload",
    "ExecStart",
}
"""Directives with the paths of files."""

OF_THE_UNIT: Final = {
    "After",
    "Description",
    "StartLimitIntervalSec",
    "WantedBy",
    "Wants",
}
"""Directives that are not in the section of the service."""

DATA: Final = ("User", "StateDirectory", "StateDirectoryMode")

LEFT_TO_DEFAULTS: Final = {
    "analytics.reporting.enabled",
    "analytics.reporting.samples",
    "cache.cdc.avg",
    "cache.cdc.max",
    "cache.cdc.min",
    "cache.database.pool.max-idle-conns",
    "cache.database.pool.max-open-conns",
    "cache.lock.allow-degraded-mode",
    "cache.lock.backend",
    "cache.lock.download-lock-ttl",
    "cache.lock.lru-lock-ttl",
    "cache.lock.redis.key-prefix",
    "cache.lock.retry.initial-delay",
    "cache.lock.retry.jitter",
    "cache.lock.retry.max-attempts",
    "cache.lock.retry.max-delay",
    "cache.lru.timezone",
    "cache.redis.db",
    "cache.redis.pool-size",
    "cache.redis.use-tls",
    "cache.temp-path",
}
"""Settings that the module of nixpkgs sets without an option."""

REFUSED: Final = {
    "two databases": ("databaseURL and", "databaseURLFile are both set"),
    "a schedule without a size": ("lru.schedule is set", "maxSize is not"),
    "two passwords of Redis": ("redis.password and", "redis.passwordFile are both set"),
    "a backend that is not there": ('lock.backend is "redis"', "redis is not set"),
    "Redis for another backend": ("redis is set", 'lock.backend is "local"'),
    "half of the keys of a bucket": ("accessKeyIdPath is set", "secretAccessKeyPath is not"),
    "option and setting differ": (
        "cache.hostName and services.ncps.settings.cache.hostname",
        "logLevel and services.ncps.settings.log.level",
    ),
    "a secret as value and as file": ("setting cluster.secret", "given twice"),
    "a key in one word": ('settings."cache.hostname"', "quotation marks"),
    "a credential that is no secret": ('credentials."cache.hostname"', "docs/settings.md"),
    "a store in a home": ("/home/me/ncps", "ProtectHome", "/var/lib"),
}
"""Contradicting sets of options, and words of the messages."""


@cache
def found() -> dict[str, Evaluated]:
    return ours()


def directives(name: str) -> dict[str, Any]:
    service: dict[str, Any] = found()[name]["service"]["serviceConfig"]
    return service


@cache
def unit(name: str) -> Unit:
    return unit_of(found()[name])


class FileTests(SynchronousTestCase):
    def test_nix_can_read_them(self) -> None:
        """Each file is an expression."""
        self.assertIn(ROOT / "nix" / "module.nix", FILES)
        nix_instantiate("--parse", *map(str, FILES))

    def test_the_kept_results_are_those_of_this_module(self) -> None:
        """A machine without nixpkgs has the same results as one with nixpkgs."""
        kept = json.loads((KEPT / "ours.json").read_text())["evaluated"]
        self.assertEqual(found(), kept)


class UnitTests(SynchronousTestCase):
    def test_it_is_hardened(self) -> None:
        """The service may do no more than that of nixpkgs, except lowering a priority."""
        said = directives("nothing but enable")
        expected = {**NIXPKGS, "SystemCallFilter": [*NIXPKGS["SystemCallFilter"], *LOWERING]}
        self.assertEqual(expected, {name: said[name] for name in NIXPKGS})

    def test_it_is_the_unit_for_other_systems(self) -> None:
        """The two units differ only in paths."""
        mine = {name: words(value) for name, value in directives("nothing but enable").items()}
        theirs: dict[str, list[str]] = {}
        for line in (ROOT / "deploy" / "ncps.service").read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not name.startswith("#"):
                theirs.setdefault(name, []).extend(value.split())
        for name in ({*theirs} & {*mine}) - PLACES:
            self.assertEqual(theirs[name], mine[name], name)
        for name in {*theirs} - {*mine} - PLACES:
            self.assertIn(name, OF_THE_UNIT)

    def test_nothing_but_enable(self) -> None:
        """No option is required; data are in the unit's own directory, for the module's user."""
        service = found()["nothing but enable"]
        said = directives("nothing but enable")
        self.assertEqual([], service["warnings"])
        self.assertEqual(("ncps", "ncps", "0700"), tuple(map(said.get, DATA)))
        self.assertEqual({}, service["tmpfiles"])
        self.assertEqual([], said["LoadCredential"])
        cache = unit("nothing but enable").config["cache"]
        self.assertEqual("sqlite:/var/lib/ncps/db/db.sqlite", cache["database-url"])
        self.assertEqual({"local": "/var/lib/ncps"}, cache["storage"])
        self.assertEqual("network-online.target", service["service"]["after"][0])

    def test_nothing_without_enable(self) -> None:
        """Without `enable` the module makes no service."""
        self.assertIsNone(found()["not enabled"]["service"])

    def test_it_gives_what_nixpkgs_gives(self) -> None:
        """Each option means the same: all differences are defaults of the program."""
        for name, theirs in of_nixpkgs().items():
            mine, sources = flat(unit(name).config), {*theirs.credentials.values()}
            for key, value in flat(theirs.config).items():
                if key == "cache.netrc-file":  # a credential of ours
                    sources.add(value)
                elif key in mine:
                    self.assertEqual(value, mine.pop(key), f"{name}: {key}")
                else:
                    self.assertIn(key, LEFT_TO_DEFAULTS, name)
            secrets = [key for key, value in mine.items() if CREDENTIALS in str(value)]
            self.assertEqual(sources, {*unit(name).credentials.values()})
            self.assertEqual(sorted(unit(name).credentials), sorted(secrets))
            rest = {key for key, value in mine.items() if value is not False}.difference(secrets)
            self.assertLessEqual(rest, {"cache.redis.password"}, name)  # a variable of their module

    def test_directories(self) -> None:
        """Other directories are made, writable, and the start waits for their mounts."""
        elsewhere = ["/mnt/hd/ncps/data", "/mnt/hd/ncps/db", "/mnt/hd/ncps/tmp"]
        service = found()["names of old"]
        self.assertEqual(elsewhere, directives("names of old")["ReadWritePaths"])
        self.assertEqual(elsewhere, sorted(service["tmpfiles"]))
        self.assertEqual({"user": "ncps", "group": "ncps", "mode": "0700"}, *modes(service))
        mounts = service["service"]["unitConfig"]["RequiresMountsFor"]
        self.assertEqual(["/var/lib/ncps", *elsewhere], mounts)
        self.assertEqual(["/srv/ncps"], directives("database by settings")["ReadWritePaths"])
        self.assertEqual(["/var/tmp/ncps"], directives("settings")["ReadWritePaths"])
        self.assertEqual([], directives("a bucket")["ReadWritePaths"])

    def test_settings(self) -> None:
        """They have every key, and win over options without a value."""
        config = unit("settings").config
        self.assertEqual({"addr": ["127.0.0.1:8501"], "workers": 1}, config["server"])
        self.assertEqual({"ttl": "30s"}, config["cache"]["negative"])
        self.assertNotIn("max-size", config["cache"])
        self.assertEqual([], found()["settings that agree with options"]["failed"])
        by_settings = unit("a bucket by settings").config["cache"]["storage"]
        self.assertEqual({"s3"}, set(by_settings))

    def test_secrets(self) -> None:
        """systemd reads them from files that only root can read."""
        said = unit("credentials")
        names = {"cluster.secret-file", "cache.database-url-file"}
        self.assertEqual(names, set(said.credentials))
        self.assertEqual({}, said.serve.environment)
        self.assertEqual(
            f"{CREDENTIALS}/cluster.secret-file", said.config["cluster"]["secret-file"]
        )
        self.assertNotIn("database-url", said.config["cache"])
        self.assertEqual("/run/secrets/ncps.env", directives("variables")["EnvironmentFile"])


class MistakeTests(SynchronousTestCase):
    def test_options_that_contradict_each_other(self) -> None:
        """The build ends; the message names the options and the right one."""
        for name, words in REFUSED.items():
            failed = found()[name]["failed"]
            text = "".join(failed)
            for word in words:
                self.assertIn(word, text)
            self.assertEqual(text.count("services.ncps.settings.") or 1, len(failed), failed)
        others = [name for name, each in found().items() if each["failed"] and name not in REFUSED]
        self.assertEqual([], others)

    def test_secrets_that_everybody_can_read(self) -> None:
        """A warning names the setting, never the secret, and a better way."""
        warnings = "".join(found()["secrets in the Nix store"]["warnings"])
        self.assertIn("setting cache.secret-key-path is in the Nix store", warnings)
        self.assertIn('services.ncps.credentials."cache.database-url"', warnings)
        self.assertNotIn("easypwd", warnings)
        self.assertIn("sends no reports", "".join(found()["reports"]["warnings"]))

    def test_the_module_knows_the_secrets(self) -> None:
        """They are the secrets of the program."""
        listed = nix_instantiate("--eval", "--strict", "--json", f"{ROOT}/nix/secret-settings.nix")
        secrets = [setting.key for setting in TABLE if setting.is_secret]
        self.assertEqual(sorted(secrets), json.loads(listed))

    def test_the_build_checks_the_settings(self) -> None:
        """The program reads them, with placeholders for the credentials."""
        for name in ("nothing but enable", "several machines", "credentials", "a bucket"):
            self.assertEqual("", self.check(name), name)
        self.assertIn("did you mean cache.hostname", self.check("a typing mistake"))
        self.assertIn("cache.max-size", self.check("a wrong value"))
        self.assertIn("cache-database-url", self.check("locks without their database"))
        self.assertEqual("", self.check_of("variables"))

    def check(self, name: str) -> str:
        """Build the configuration file; return the mistakes that end the build."""
        check = self.check_of(name)
        self.assertIn("ncps settings --config", check)
        done = subprocess.run(
            ["sh", "-euc", check],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        errors = [line for line in done.stderr.splitlines() if "error: " in line]
        self.assertEqual(2 if errors else 0, done.returncode, done.stderr)
        return "\n".join(errors)

    def check_of(self, name: str) -> str:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        package = Path(sys.executable).parents[1]
        return written(directives(name)["ExecStart"], directory, package).check


def flat(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return values by their dotted keys."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{above}{name}"
        values |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values


def words(value: object) -> list[str]:
    """Return the words of a directive, split as systemd does."""
    if isinstance(value, list):
        return [word for each in value for word in words(each)]
    return ("yes" if value else "no").split() if isinstance(value, bool) else str(value).split()


def modes(service: Evaluated) -> list[Any]:
    """Return all modes in which directories are made."""
    said = [rule["d"] for rule in service["tmpfiles"].values()]
    return said[:1] if all(each == said[0] for each in said) else said
