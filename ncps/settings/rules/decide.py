"""All rules that check settings against each other, applied once all sources are read.

Each `decide_…` takes the draft. It may change values, and it adds problems and warnings.
"""

from __future__ import annotations

from ncps.settings.draft import Draft
from ncps.settings.kinds.network import ENCRYPTED
from ncps.settings.rules.database import decide_database
from ncps.settings.rules.eviction import decide_eviction
from ncps.settings.rules.identities import decide_identities
from ncps.settings.rules.locks import decide_locks
from ncps.settings.rules.recompress import decide_recompress
from ncps.settings.rules.storage import decide_storage
from ncps.settings.rules.telemetry import decide_telemetry
from ncps.settings.rules.uploads import decide_uploads
from ncps.settings.rules.upstream import decide_upstreams

_REUSED_FOR_S = 90.0
_TLS_FILES = ("cert_file", "key_file", "client_ca_file")


def decide(draft: Draft) -> None:
    """Apply all rules, in the order in which their problems are reported."""
    decide_database(draft)
    decide_upstreams(draft)
    decide_locks(draft)
    decide_eviction(draft)
    decide_uploads(draft)
    decide_storage(draft)
    decide_recompress(draft)
    decide_cluster(draft)
    decide_telemetry(draft)
    decide_server(draft)
    decide_tls(draft)
    decide_identities(draft)


def decide_cluster(draft: Draft) -> None:
    """Check that an advertised address has the secret and the database that it needs."""
    if not draft.values.get("cluster.advertise_url"):
        return
    if not draft.values.get("cluster.secret"):
        draft.problems.append(
            "cluster-advertise-url needs cluster-secret, by which instances know each other"
        )
    if getattr(draft.values.get("cache.database_url"), "dialect", "") == "sqlite":
        draft.problems.append(
            "cluster-advertise-url is for several machines, and cache-database-url names SQLite,"
            " which is for one: give them a PostgreSQL or MySQL database that they share"
        )


def decide_server(draft: Draft) -> None:
    """Warn of an idle timeout that costs Nix retries, unless the settings are refused anyway."""
    idle_timeout_s = draft.values.get("server.idle_timeout_s")
    is_short = isinstance(idle_timeout_s, float) and idle_timeout_s <= _REUSED_FOR_S
    if is_short and not draft.problems:
        draft.warnings.append(
            "server-idle-timeout should be more than 90s: Nix reuses connections that were idle "
            "that long"
        )


def decide_tls(draft: Draft) -> None:
    """Check that https:// addresses have a certificate, and that a certificate has an address."""
    flags = {name: f"server-tls-{name.replace('_', '-')}" for name in _TLS_FILES}
    given = {flag for name, flag in flags.items() if draft.values.get(f"server.tls.{name}")}
    addresses = draft.values.get("server.addr")
    if not isinstance(addresses, tuple) or draft.problems:
        return
    is_encrypted = any(address.startswith(ENCRYPTED) for address in addresses)
    missing = [flag for flag in (flags["cert_file"], flags["key_file"]) if flag not in given]
    if missing and (given or is_encrypted):
        reason = f"{', '.join(sorted(given))} needs" if given else "server-addr: https:// needs"
        draft.problems.append(f"{reason} {' and '.join(missing)}, too")
    elif given and not is_encrypted:
        draft.problems.append(
            "server-tls-cert-file has no effect, since no server-addr speaks TLS: write one like"
            " https://:8443"
        )
