from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.network import (
    parse_address,
    parse_trusted_proxy,
    parse_upstream,
    show_upstream,
    upstream_from_table,
)
from tests.unit.settings.around import load_with


class AddressTests(SynchronousTestCase):
    def test_host_and_port_become_an_endpoint(self) -> None:
        """Addresses of existing configurations work; :PORT means every interface."""
        for text, endpoint in {
            ":8501": r"tcp:8501:interface=\:\:",
            "127.0.0.1:80": "tcp:80:interface=127.0.0.1",
            "localhost:0": "tcp:0:interface=localhost",
            "[::1]:8501": r"tcp:8501:interface=\:\:1",
            "[fe80::1%eth0]:1": r"tcp:1:interface=fe80\:\:1%eth0",
        }.items():
            self.assertEqual(parse_address(text), endpoint)

    def test_endpoints_of_twisted_are_taken_as_they_are(self) -> None:
        """ncps can listen on UNIX sockets and sockets of systemd."""
        for text in (
            "tcp:8501:interface=127.0.0.1",
            "tcp:port=8501",
            "unix:/run/ncps.sock:mode=660",
            "systemd:domain=INET6:name=http",
            "systemd:domain=INET:index=0",
        ):
            self.assertEqual(parse_address(text), text)

    def test_schemes_say_which_addresses_speak_tls(self) -> None:
        """A URL, or an endpoint of systemd, says whether TLS is used."""
        for text, expected in (
            ("http://a:1", "tcp:1:interface=a"),
            ("https://:8443", r"https+tcp:8443:interface=\:\:"),
            ("https://[::1]:8443/", r"https+tcp:8443:interface=\:\:1"),
            ("https+tcp:8443:interface=127.0.0.1", "https+tcp:8443:interface=127.0.0.1"),
            ("https+systemd:domain=INET:name=a", "https+systemd:domain=INET:name=a"),
        ):
            self.assertEqual(expected, parse_address(text))

    def test_mistakes_are_found_before_listening(self) -> None:
        """A wrong address is an error at the start, with a right one."""
        for text in (
            "",
            "8501",
            "host",
            "a:b",
            ":99999",
            "::1:8501",
            "[::1]",
            "ftp://a:1",
            "http://a",
            "https://a",
            "https://a:1/path",
            "https://unix:/run/ncps.sock",
            "https+unix:/run/ncps.sock",
            "https+systemd:domain=UNIX:name=https",
            "https+a:1",
            "a b:1",
            "a\n:1",
            "tcp:",
            "tcp:99999",
            "tcp:http",
            "tcp:1:interfce=::1",
            "unix:",
            "unix:/a:mode=x",
            "systemd:",
            "systemd:domain=INET6",
            "systemd:name=http",
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_address(text)

    def test_messages_are_ours(self) -> None:
        """The error of a wrong endpoint shows right ones, and no words of Python."""
        for text, reason in (
            ("tcp:http", "is not a usable endpoint: it should be an address such as :8501"),
            ("tcp:1:interfce=::1", "is not a usable endpoint"),
            ("tcp:1:foo=bar", "(it has no argument foo): it should be an address such as :8501"),
            ("unix:/a:mode=x", "is not a usable endpoint: it should be"),
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                parse_address(text)
            self.assertIn(reason, str(caught.exception))
            for word in ("literal", "_parse", "index", "__"):
                self.assertNotIn(word, str(caught.exception))

    @given(st.text(alphabet="tcpunix:/=[]1.\\", max_size=20) | st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text breaks the parser."""
        with contextlib.suppress(ValueError):
            parse_address(text)


class ProxyTests(SynchronousTestCase):
    def test_addresses_networks_and_sockets(self) -> None:
        """Each is stored in one spelling."""
        for text, network in (
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("unix", "unix"),
        ):
            self.assertEqual(parse_trusted_proxy(text), network)

    def test_mistakes_are_explained(self) -> None:
        """An address with a mask suggests the network that was probably meant."""
        with self.assertRaisesRegex(ValueError, r"did you mean 10\.0\.0\.0/8\?"):
            parse_trusted_proxy("10.0.0.7/8")
        for text in ("", "nginx", "10.0.0.0/33", "::/129", "192.0.2.7:80", "UNIX"):
            with self.assertRaisesRegex(ValueError, "should be an address such as"):
                parse_trusted_proxy(text)


class UpstreamTests(SynchronousTestCase):
    def test_parameters_are_taken_off(self) -> None:
        """Parameters are for one upstream and are not sent to it."""
        upstream = parse_upstream(
            "https://Cache.example.org:443/sub/?priority=10&dialer-timeout=1s"
            "&response-header-timeout=2s&idle-timeout=500ms"
        )
        self.assertEqual(upstream.url, "https://cache.example.org/sub")
        self.assertEqual(upstream.host, "cache.example.org")
        self.assertEqual(upstream.priority, 10)
        self.assertEqual(upstream.dialer_timeout_s, 1.0)
        self.assertEqual(upstream.response_header_timeout_s, 2.0)
        self.assertEqual(upstream.idle_timeout_s, 0.5)
        self.assertEqual(show_upstream(upstream), "https://cache.example.org/sub?priority=10")

    def test_no_priority_and_zero_mean_forty(self) -> None:
        """The default priority is that of cache.nixos.org."""
        for text in ("http://a", "http://a?priority=0"):
            self.assertEqual(parse_upstream(text).priority, 40)
        self.assertEqual(show_upstream(parse_upstream("http://a:8080/")), "http://a:8080")

    def test_parameters_of_nix_are_passed_over(self) -> None:
        """Each parameter that people copy from nix.conf causes one warning."""
        url = "https://a?priority=39&want-mass-query=true&trusted=1&trusted=1"
        upstream = parse_upstream(url)
        self.assertEqual((upstream.url, upstream.priority), ("https://a", 39))
        self.assertEqual(
            load_with({"cache-upstream-url": url}).warnings,
            tuple(
                f"upstream https://a: {name} is a parameter of Nix and has no effect here"
                for name in ("want-mass-query", "trusted")
            ),
        )
        table = upstream_from_table({"url": "https://a", "trusted": True, "priority": 7})
        self.assertEqual((table.priority, table.ignored), (7, ("trusted",)))

    def test_credentials_are_taken_off_and_hidden(self) -> None:
        """A password in a URL is used and never shown."""
        upstream = parse_upstream("https://me:s%40cret@[::1]:8080/x")
        self.assertEqual(upstream.url, "https://[::1]:8080/x")
        self.assertEqual((upstream.user, upstream.password), ("me", "s@cret"))
        self.assertNotIn("cret", repr(upstream) + show_upstream(upstream))

    def test_wrong_urls_are_refused(self) -> None:
        """A wrong URL of an upstream is an error at the start."""
        for text, reason in {
            "": "http://",
            "cache.nixos.org": "http://",
            "s3://bucket": "http://",
            "https://": "name a host",
            "https:///x": "name a host",
            "https://a b": "spaces",
            "https://a\n": "spaces",
            "https://a:99999": "wrong port: it should be a number from 1 to 65535",
            "https://a:http": "wrong port: it should be a number from 1 to 65535",
            "https://a:0": "wrong port",
            "https://a:-1": "wrong port",
            "https://[::1]x:80": "name a host",
            "https://[::1": "URL such as",
            "https://a#b": "fragment",
            "https://a?priorityy=1": "did you mean priority",
            "https://a?zzz=1": "unknown parameter 'zzz'",
            "https://a?priority=65536": "between 0 and 65535",
            "https://a?priority=-1": "between 0 and 65535",
            "https://a?priority=": "whole number",
            "https://a?priority=1&priority=2": "twice",
            "https://a?idle-timeout=5": "idle-timeout should be a duration",
            "https://a?idle-timeout=0": "more than 0",
        }.items():
            with self.assertRaisesRegex(ValueError, reason, msg=text):
                parse_upstream(text)

    def test_a_file_may_use_a_table(self) -> None:
        """The long form in a file means the same as the parameters."""
        upstream = upstream_from_table({"url": "http://a", "priority": 7, "idle-timeout": "1m"})
        self.assertEqual((upstream.priority, upstream.idle_timeout_s), (7, 60.0))
        for table, reason in (
            ({}, "should have a url"),
            ({"url": 1}, "should have a url"),
            ({"url": "http://a", "prio": 1}, "did you mean priority"),
            ({"url": "http://a", "priority": True}, "number or text"),
            ({"url": "http://a", "priority": [1]}, "number or text"),
            ({"url": "http://a?priority=1", "priority": 1}, "either in the url or beside it"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                upstream_from_table(table)

    @given(st.text() | st.text().map("http://".__add__))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text breaks the parser, and no query is left in a URL."""
        try:
            upstream = parse_upstream(text)
        except ValueError:
            return
        self.assertNotIn("?", upstream.url)
        self.assertNotIn("@", upstream.url.partition("://")[2].partition("/")[0])
