"""Tests of the settings of proxies, and of the variables that name them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.fetching import proxies_of
from ncps.settings.carried import pack, unpack
from ncps.settings.kinds.proxies import ProxiesSetting, ProxyURL, parse_proxy
from ncps.settings.load import load
from ncps.settings.report import effective
from ncps.settings.schema.tree import Settings
from tests.unit.settings.around import load_with, problems_of, surroundings

HTTP, HTTPS = "http://cache.example", "https://cache.example"
URL = "http://me:hunt%40er2@proxy.example:3128"


def chosen(settings: Settings) -> dict[str, str]:
    """Return the proxy for each upstream, or that it is asked directly."""
    found = {}
    for upstream in settings.cache.upstream.upstreams:
        scheme, _, host = upstream.url.partition("://")
        port = {"http": 80, "https": 443}[scheme]
        proxy = proxies_of(upstream.proxies).choose(scheme, host, port)
        found[upstream.url] = "" if proxy is None else proxy.name
    return found


def chosen_with(*upstreams: str, flag: str = "", **environ: str) -> list[str]:
    flags = {"cache-upstream-url": upstreams or (HTTP, HTTPS)}
    more = {"cache-upstream-proxy": flag} if flag else {}
    return list(chosen(load_with({**flags, **more}, **environ)).values())


class ParseTests(SynchronousTestCase):
    def test_urls(self) -> None:
        """Scheme, port and credentials may be missing; credentials are not shown."""
        for text, host, port, shown in (
            ("proxy", "proxy", 80, "http://proxy:80"),
            ("proxy:3128", "proxy", 3128, "http://proxy:3128"),
            ("http://proxy.example/", "proxy.example", 80, "http://proxy.example:80"),
            ("https://proxy:8443", "proxy", 8443, "https://proxy:8443"),
            ("http://[fd00::1]:3128", "fd00::1", 3128, "http://[fd00::1]:3128"),
            (URL, "proxy.example", 3128, "http://proxy.example:3128"),
        ):
            found = parse_proxy(text)
            assert found is not None
            self.assertEqual((host, port, shown), (found.host, found.port, str(found)))
            self.assertNotIn("hunt", repr(found))
        found = parse_proxy(URL)
        assert found is not None
        self.assertEqual(("me", "hunt@er2"), (found.user, found.password))
        self.assertEqual("none", str(parse_proxy("none")))
        self.assertIsNone(parse_proxy(""))

    def test_invalid_proxies(self) -> None:
        """The error at the start says what is right, and repeats no password."""
        for text in (
            *("ftp://proxy:1", "http://", "http://proxy:0", "http://proxy:x", "http://a b"),
            *("http://proxy/path", "http://proxy?x", "socks5://me:hunter2@proxy:1080"),
        ):
            (problem,) = problems_of({"cache-upstream-proxy": text})
            self.assertIn("flag --cache-upstream-proxy: ", problem)
            self.assertNotIn("hunter2", problem)
        (problem,) = problems_of({"cache-upstream-proxy": "socks5://proxy"})
        self.assertIn("SOCKS", problem)
        self.assertIn("wrong port: it should be", problems_of({"cache-upstream-proxy": "a:x"})[0])
        self.assertIn("http://proxy.example.org:3128", problem)


class EnvironmentTests(SynchronousTestCase):
    def test_variables(self) -> None:
        """Each scheme has a variable, lower case first; `all_proxy` is for the rest."""
        self.assertEqual(["", ""], chosen_with())
        for names in (("http_proxy", "https_proxy"), ("HTTP_PROXY", "HTTPS_PROXY")):
            environ = dict(zip(names, ("a:1", "http://b:2"), strict=True))
            self.assertEqual(["a:1", "b:2"], chosen_with(**environ))
        self.assertEqual(["a:1", ""], chosen_with(http_proxy="a:1", HTTP_PROXY="b:2"))
        self.assertEqual(["a:1", "c:3"], chosen_with(http_proxy="a:1", ALL_PROXY="c:3"))
        self.assertEqual(["", ""], chosen_with(http_proxy="", all_proxy=""))

    def test_exceptions(self) -> None:
        """`no_proxy`, with commas or blanks, and this machine are exceptions."""
        found = chosen_with(
            *("http://a.lan", "http://10.0.0.1", "http://b.example", "http://127.0.0.1"),
            all_proxy="p:1",
            no_proxy="lan, 10.0.0.0/8 x",
        )
        self.assertEqual(["", "", "p:1", ""], found)
        self.assertEqual(["", ""], chosen_with(all_proxy="p:1", NO_PROXY="*"))

    def test_variable_that_cannot_be_followed(self) -> None:
        """A wrong variable is an error; `all_proxy` causes only a warning."""
        (problem,) = problems_of(http_proxy="socks5://me:hunter2@p:1")
        self.assertIn("environment http_proxy is a SOCKS proxy", problem)
        self.assertIn("cache-upstream-proxy", problem)
        self.assertNotIn("hunter2", problem)
        settings = load_with(all_proxy="socks5://me:hunter2@p:1")
        (warning,) = settings.warnings
        self.assertIn("environment all_proxy is not used", warning)
        self.assertNotIn("hunter2", warning)
        self.assertEqual({"https://cache.nixos.org": ""}, chosen(settings))
        self.assertEqual((), problems_of({"cache-upstream-proxy": "none"}, http_proxy="socks5://p"))

    def test_authorities(self) -> None:
        """A wrong file of certificates causes a warning if an upstream uses https."""
        for name in ("SSL_CERT_FILE", "NIX_SSL_CERT_FILE"):
            (warning,) = load_with({}, **{name: "/no-cert-file.crt"}).warnings
            self.assertIn(f"environment {name}: /no-cert-file.crt cannot be read", warning)
            plain = load_with({"cache-upstream-url": HTTP}, **{name: "/no-cert-file.crt"})
            self.assertEqual((), plain.warnings)


class SettingTests(SynchronousTestCase):
    def test_setting_goes_before_the_environment(self) -> None:
        """It overrides all but the exceptions; `none` means no proxy."""
        self.assertEqual(["p:1", "p:1"], chosen_with(flag="p:1", http_proxy="a:2"))
        self.assertEqual(["", ""], chosen_with(flag="none", all_proxy="a:2"))
        self.assertEqual(["", ""], chosen_with(flag="p:1", no_proxy="example"))
        self.assertEqual(["p:1", "p:1"], chosen_with(CACHE_UPSTREAM_PROXY="p:1"))

    def test_one_upstream(self) -> None:
        """The proxy in its own URL overrides all others."""
        upstreams = (f"{HTTP}?proxy=http://own:3&priority=7", f"{HTTPS}?proxy=none", "http://b")
        found = chosen_with(*upstreams, flag="p:1", no_proxy="cache.example")
        self.assertEqual(["own:3", "", "p:1"], found)
        (problem,) = problems_of({"cache-upstream-url": f"{HTTP}?proxy=socks5://x"})
        self.assertIn("proxy is a SOCKS proxy", problem)
        (problem,) = problems_of({"cache-upstream-url": "http://localhost:1?proxy=p:1"})
        self.assertIn("this machine is never asked through a proxy", problem)

    def test_table_of_a_file(self) -> None:
        """The long form can name the proxy, too."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "config.json"
            upstream = {"url": HTTP, "proxy": "http://own:3"}
            path.write_text(json.dumps({"cache": {"upstream": {"urls": [upstream]}}}))
            settings = load({"config": [str(path)]}, surroundings=surroundings())
        self.assertEqual({HTTP: "own:3"}, chosen(settings))

    def test_credentials(self) -> None:
        """The proxy and the workers get them; nothing shows them."""
        settings = load_with({"cache-upstream-proxy": URL})
        self.assertNotIn("hunt", repr(settings))
        shown = {key: value for key, value, _ in effective(settings)}
        self.assertEqual("http://proxy.example:3128", shown["cache.upstream.proxy"])
        (upstream,) = unpack(pack(settings)).cache.upstream.upstreams
        proxy = proxies_of(upstream.proxies).https
        assert proxy is not None
        self.assertEqual(b"Basic bWU6aHVudEBlcjI=", proxy.authorization)
        self.assertFalse(proxy.is_secured)

    def test_value_in_a_file(self) -> None:
        """The URL may hold a password, so a file of its own can hold the URL."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "proxy"
            path.write_text(f"{URL}\n")
            settings = load_with({"cache-upstream-proxy-file": str(path)})
        self.assertEqual({"https://cache.nixos.org": "proxy.example:3128"}, chosen(settings))

    def test_proxy_over_tls(self) -> None:
        """The scheme https means TLS to the proxy."""
        setting = ProxiesSetting(http=ProxyURL(scheme="https", host="p", port=1))
        proxy = proxies_of(setting).http
        assert proxy is not None
        self.assertTrue(proxy.is_secured)
