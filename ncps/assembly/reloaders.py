"""Reloaders: each applies other settings to one part of a running process.

A setting that one of them applies has `reloads=True` in the schema. Running work keeps the settings
with which it began.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ncps.aio.ending import Ending
from ncps.aio.waiting import sleep
from ncps.assembly.access import AccessControl
from ncps.assembly.edge import certificate_files, let_fit, let_read, scrapes
from ncps.assembly.keys import trusted_keys
from ncps.assembly.parts import Foundation
from ncps.assembly.reload import TROUBLE
from ncps.assembly.replicas import keys_text
from ncps.cache.core import Core
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.world import World
from ncps.cache.write.rules import UploadRules
from ncps.errors import NcpsError
from ncps.observe import log_levels
from ncps.ports import Notice
from ncps.settings.schema.tree import Settings
from ncps.web.certificates import Certificates
from ncps.web.routes import Routes
from ncps.web.site import NcpsSite

Reloader = Callable[[Settings], Awaitable[list[str]]]
"""Applies settings, and returns lines about changes that these do not show."""

LINGER_S: Final = 60.0
"""Seconds after which all searches have ended that began before a reload of the keys."""
_log = Logger()


def of_process(ending: Ending, site: NcpsSite) -> tuple[Reloader, ...]:
    """Make the reloaders of the log, of the stop, and of the limits of clients."""

    async def log(settings: Settings) -> list[str]:
        log_levels.change_level(settings.log.level)
        return []

    async def server(settings: Settings) -> list[str]:
        ending.delay_s = settings.server.drain_delay_s
        ending.drain_s = settings.server.drain_timeout_s
        before = site.limits.max_connections
        site.take(settings.server)
        if settings.server.max_connections != before:
            let_fit(settings, site)
        return []

    return log, server


def of_core(world: World, core: Core, agreement: Agreement) -> tuple[Reloader, ...]:
    """Make the reloaders of the limits of downloads, and of the trusted keys."""

    async def downloads(settings: Settings) -> list[str]:
        world.admission.take(settings.cache.download)
        world.cluster.pace = settings.cache.upstream
        world.cluster.patience_s = settings.cache.download.poll_timeout_s
        return []

    async def keys(settings: Settings) -> list[str]:
        trusted, before = trusted_keys(settings), tuple(core.vetting.trusted)
        if trusted != before:
            core.vetting.trusted.replace(trusted)
            agreement.trust(keys_text(settings.cache.upstream.public_keys))
            core.state.board.heard(Notice("gap"))
            world.tasks.start("forget narinfos of former keys", forget_again())
        return []

    async def forget_again() -> None:
        await sleep(world.clock, LINGER_S)
        core.state.board.heard(Notice("gap"))

    return downloads, keys


def of_uploads(rules: UploadRules, core: Core) -> Reloader:
    """Make the reloader of the limits of uploads, and of the trusted keys of uploads."""

    async def uploads(settings: Settings) -> list[str]:
        rules.take(settings.cache)
        core.realisation_verifier.take(rules.keys, requires_key=rules.needs_signature)
        return []

    return uploads


def of_clients(base: Foundation, access: AccessControl, site: NcpsSite) -> Reloader:
    """Make the reloader of access."""
    routes = site.resource
    assert isinstance(routes, Routes)

    async def clients(settings: Settings) -> list[str]:
        before = access.guard.rules.reads_are_open
        warnings = access.take(settings)
        if access.guard.rules.reads_are_open != before:
            let_read(site, access)
        routes.replace(scrapes(base, settings))
        return [f"{TROUBLE}{line}" for line in warnings]

    return clients


def of_certificates(certificates: Certificates | None) -> Reloader:
    """Make the reloader of the authorities of client certificates."""

    async def authorities(settings: Settings) -> list[str]:
        files = certificate_files(settings)
        if certificates is None or files is None:
            return []
        try:
            await certificates.take(files)
        except NcpsError as error:
            return [f"{TROUBLE}the authorities of clients stay as they were until now: {error}"]
        return []

    return authorities


async def apply(reloaders: Iterable[Reloader], settings: Settings) -> list[str]:
    """Call all reloaders, even if one of them fails; return all their lines."""
    lines: list[str] = []
    for reloader in reloaders:
        try:
            lines += await reloader(settings)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a fault in one reloader must not stop the others
            _log.failure("a part could not apply the new settings")
    return lines
