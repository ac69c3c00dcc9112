"""Rules, issuers and headers, as people write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.auth import (
    HEADER,
    ISSUER,
    OIDC_RULE,
    TLS_RULE,
    AuthRule,
    IssuerSetting,
)
from ncps.settings.setting import Kind
from tests.unit.settings.around import FileCase, load_with, problems_of

ISSUER_URL = "https://gitlab.example.org"
OIDC = {"auth-oidc-issuer": ISSUER_URL, "auth-oidc-audience": "ncps"}


def trouble(kind: Kind, text: str) -> str:
    """Return the error of a text; empty if it is valid."""
    try:
        kind.parse(text)
    except ValueError as error:
        return str(error)
    return ""


class RuleTests(FileCase):
    def test_a_rule_in_one_line(self) -> None:
        """A rule has scopes, conditions with alternatives, and an expression for paths."""
        found = OIDC_RULE.parse("scope=read,write; repository=o/r ; ref=a,b*;path=[a-z]{1,3}=x")
        expected = AuthRule(
            scopes=("read", "write"),
            conditions=(("repository", ("o/r",)), ("ref", ("a", "b*"))),
            path="[a-z]{1,3}=x",
        )
        self.assertEqual(expected, found)
        assert OIDC_RULE.show is not None
        self.assertEqual(expected, OIDC_RULE.parse(OIDC_RULE.show(found)))

    def test_a_claim_may_be_called_like_a_part_of_a_rule(self) -> None:
        """The prefix `claim.` marks such a claim."""
        found = OIDC_RULE.parse("scope=read; claim.scope=x; claim.path=y")
        assert isinstance(found, AuthRule)
        self.assertEqual((("scope", ("x",)), ("path", ("y",))), found.conditions)
        assert OIDC_RULE.show is not None
        self.assertEqual(found, OIDC_RULE.parse(OIDC_RULE.show(found)))

    def test_wrong_rules_say_what_would_be_right(self) -> None:
        """No part of a rule about rights is guessed."""
        for text, expected in (
            ("", "name a scope"),
            ("scope=read", "name a condition"),
            ("sub=x", "name a scope"),
            ("scope=all; sub=x", "one or more of read, write"),
            ("scope=; sub=x", "have a value"),
            ("scope=read; sub=", "have a value"),
            ("scope=read; sub=a,,b", "have a value"),
            ("scope=read; scope=write; sub=x", "given once"),
            ("scope=read; sub=x; sub=y", "given once"),
            ("scope=read; sub", "NAME=VALUE"),
            ("scope=read; su b=x", "NAME=VALUE"),
            ("scope=read; sub=x; path=", "regular expression"),
            (f"scope=read; sub={'x' * 257}", "at most 256"),
        ):
            self.assertIn(expected, trouble(OIDC_RULE, text), text)
        self.assertIn("cn, dns, uri, email", trouble(TLS_RULE, "scope=read; sub=x"))

    def test_rules_in_a_file(self) -> None:
        """Rules are tables, with lists, numbers and booleans, or texts."""
        settings = self.load_file(
            f"""
            auth:
              oidc:
                issuers: [{ISSUER_URL}]
                audiences: [ncps]
                rules:
                  - scope: [read, write]
                    project_path: group/*
                    ref_protected: true
                    project_id: 22
                    path: ".*-x{{1,2}}"
                  - scope=read; sub=*
            """
        )
        first, second = settings.auth.oidc.rules
        self.assertEqual(("read", "write"), first.scopes)
        self.assertEqual(
            (
                ("project_path", ("group/*",)),
                ("ref_protected", ("true",)),
                ("project_id", ("22",)),
            ),
            first.conditions,
        )
        self.assertEqual(".*-x{1,2}", first.path)
        self.assertEqual(("read",), second.scopes)

    def test_wrong_tables_are_refused(self) -> None:
        """A table can hold only what a text can hold."""
        for table in (
            {"scope": "read", "sub": {"x": "y"}},
            {"scope": "read", "sub": ["a,b"]},
            {"scope": "read", "sub": []},
            {"scope": "read", "sub": [1]},
            {"scope": "read", "sub": "a;b"},
            {"scope": "read", "sub": None},
            {"scope": [], "sub": "x"},
            {"scope": "read", "sub": "x", "path": ["x"]},
        ):
            assert OIDC_RULE.from_table is not None
            with self.assertRaises(ValueError, msg=str(table)):
                OIDC_RULE.from_table(table)

    def test_rules_hold_commas_also_in_flags_and_variables(self) -> None:
        """A flag is one rule; a variable has one rule on each line."""
        texts = ["scope=read,write; ref=a,b", "scope=read; sub=*"]
        by_flag = load_with({**OIDC, "auth-oidc-rule": texts}).auth.oidc.rules
        by_variable = load_with(OIDC, AUTH_OIDC_RULES="\n".join(texts)).auth.oidc.rules
        self.assertEqual(by_flag, by_variable)
        self.assertEqual(2, len(by_flag))


class IssuerTests(SynchronousTestCase):
    def test_issuers(self) -> None:
        """The URL of an issuer is kept exactly, also its path and a slash at its end."""
        for url in (ISSUER_URL, f"{ISSUER_URL}/", "https://x.example:8443/realms/ci"):
            self.assertEqual(IssuerSetting(url=url), ISSUER.parse(url))

    def test_only_this_machine_speaks_without_encryption(self) -> None:
        """Over http, others could replace the keys on the way."""
        for url in ("http://127.0.0.1:80", "http://[::1]:1", "http://localhost/x"):
            self.assertEqual("", trouble(ISSUER, url))
        for url in ("http://x.example", "http://127.0.0.1.example", "http://10.0.0.1"):
            self.assertIn("https://", trouble(ISSUER, url))

    def test_wrong_issuers(self) -> None:
        """Credentials, parameters and other schemes are refused."""
        for url in (
            "",
            "x",
            "ftp://x.example",
            "https://",
            "https://u:p@x.example",
            "https://x.example?y=z",
            "https://x.example/#y",
            "https://x.example:99999",
            "https://x.exa mple",
            "https://[x",
            "https://ü.example",
        ):
            self.assertNotEqual("", trouble(ISSUER, url), url)

    def test_headers_that_mean_something_else_are_refused(self) -> None:
        """A user's name is never read from a header with another meaning."""
        self.assertEqual("x-forwarded-user", HEADER.parse("X-Forwarded-User"))
        for name in ("Authorization", "Via", "X-Forwarded-For", "Host", "If-Range", "a b", "x:"):
            self.assertNotEqual("", trouble(HEADER, name), name)


class TogetherTests(SynchronousTestCase):
    """The settings of one source of clients depend on each other."""

    def problem(self, flags: dict[str, str | list[str]]) -> str:
        return "\n".join(problems_of(flags))

    def test_nothing_is_no_problem(self) -> None:
        """All these settings are optional."""
        self.assertEqual("", self.problem({}))

    def test_issuers_need_audiences_and_rules(self) -> None:
        """Without an audience, tokens for other services count; without a rule, none does."""
        self.assertIn("needs auth-oidc-audience", self.problem({"auth-oidc-issuer": ISSUER_URL}))
        self.assertIn("needs auth-oidc-rule", self.problem({**OIDC}))
        self.assertIn("needs auth-oidc-issuer", self.problem({"auth-oidc-audience": "x"}))
        self.assertIn("needs auth-oidc-issuer", self.problem({"auth-oidc-rule": "scope=read; a=b"}))

    def test_a_rule_is_not_for_all_the_world(self) -> None:
        """Everybody can get a token of GitHub for any audience."""
        for text in (f"scope=read; iss={ISSUER_URL}", "scope=read; aud=ncps"):
            found = self.problem({**OIDC, "auth-oidc-rule": text})
            self.assertIn("auth-oidc-rule 1 should name a claim", found)
        self.assertEqual("", self.problem({**OIDC, "auth-oidc-rule": "scope=read; sub=*"}))

    def test_paths_are_expressions_that_end(self) -> None:
        """An invalid expression, or one that may take years, is an error at the start."""
        for path in ("(", "(a+)+b"):
            found = self.problem({**OIDC, "auth-oidc-rule": f"scope=read; sub=x; path={path}"})
            self.assertIn("auth-oidc-rule 1: path: the pattern", found)

    def test_with_several_issuers_a_rule_names_its_own(self) -> None:
        """Otherwise one issuer could write the claims of another one."""
        two: dict[str, str | list[str]] = {
            "auth-oidc-issuer": [ISSUER_URL, "https://other.example"],
            "auth-oidc-audience": "ncps",
        }
        self.assertIn("its issuer", self.problem({**two, "auth-oidc-rule": "scope=read; sub=x"}))
        right = f"scope=read; sub=x; iss={ISSUER_URL}"
        self.assertEqual("", self.problem({**two, "auth-oidc-rule": right}))
        wrong = "scope=read; sub=x; iss=https://*"
        self.assertIn("not https://*", self.problem({**two, "auth-oidc-rule": wrong}))

    def test_certificates_need_an_authority(self) -> None:
        """Without an authority, no client shows a certificate."""
        found = self.problem({"auth-tls-rule": "scope=write; cn=ci"})
        self.assertIn("needs server-tls-client-ca-file", found)

    def test_proxies_are_named(self) -> None:
        """Without trusted proxies, every client could write the header."""
        header: dict[str, str | list[str]] = {"auth-proxy-header": "X-User"}
        self.assertIn("needs server-trusted-proxies", self.problem(header))
        header["server-trusted-proxies"] = "10.0.0.1"
        self.assertIn("needs auth-proxy-rule", self.problem(header))
        header["auth-proxy-rule"] = "scope=write; user=alice"
        self.assertEqual("", self.problem(header))
        del header["auth-proxy-header"]
        self.assertIn("needs auth-proxy-header", self.problem(header))

    def test_issuers_are_asked_through_the_proxy_of_upstreams(self) -> None:
        """If upstreams need a proxy, issuers do, too."""
        rules = {**OIDC, "auth-oidc-rule": "scope=read; sub=x"}
        (issuer,) = load_with({**rules, "cache-upstream-proxy": "http://p:3128"}).auth.oidc.issuers
        assert issuer.proxies.https is not None
        self.assertEqual("p", issuer.proxies.https.host)
        (issuer,) = load_with(rules, https_proxy="http://q:1").auth.oidc.issuers
        assert issuer.proxies.https is not None
        self.assertEqual("q", issuer.proxies.https.host)
