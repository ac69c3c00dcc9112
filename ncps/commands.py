"""The one-shot commands: migrations, and a catalog made anew from the store."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.assembly.core import core_of
from ncps.assembly.databases import dialect
from ncps.assembly.keys import vetting
from ncps.assembly.parts import adapters
from ncps.assembly.replicas import identity_of
from ncps.assembly.service import NcpsService
from ncps.assembly.world import world
from ncps.cache.cluster import Cluster
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.upkeep.rebuild import Nameless, Rebuild, RebuildTally
from ncps.cache.world import Events
from ncps.database import migrate
from ncps.errors import NcpsError
from ncps.locks.local import LocalLeases, LocalNotices
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def migrate_up(settings: Settings, dry_run: bool) -> int:
    """Apply what is pending, or only say what that is."""
    engine = dialect(settings)
    done = migrate.status(engine).pending if dry_run else migrate.up(engine)
    for migration in done:
        _say(f"{'pending' if dry_run else 'applied'} {migration.version:04} {migration.name}")
    if not done:
        _say("the schema is up to date")
    return 0


def migrate_status(settings: Settings) -> int:
    """Say what is applied and what is pending."""
    found = migrate.status(dialect(settings))
    for word, migrations in (("applied", found.applied), ("pending", found.pending)):
        for migration in migrations:
            _say(f"{word} {migration.version:04} {migration.name}")
    return 0


def rebuild(settings: Settings) -> int:
    """Fill the catalog from the store; the daemon must not run.

    NcpsError: why it could not, also if there was something, and nothing of it could be recorded.
    """
    failure: NcpsError | None = None

    async def main(reactor: Any) -> None:
        nonlocal failure
        service = NcpsService(settings, reactor)
        try:
            service.check()
            tally, nameless = await _rebuild(reactor, settings)
        except NcpsError as error:
            failure = error
            return
        finally:
            service.release_locks()
        _say(
            f"{tally.narinfos} narinfos and {tally.nars} NARs recorded,"
            f" {tally.without_bytes} narinfos without their NAR, {tally.refused} refused"
        )
        if nameless.count:
            _say(
                f"{nameless.size} bytes in {nameless.count} NARs have no narinfo in the store: they"
                " stay, and each is taken over when somebody asks for its URL"
            )
        if not tally.narinfos and (tally.refused or nameless.count):
            failure = NcpsError(_nothing(nameless))

    code = 1
    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as done:
        code = 1 if done.code else 0
    if failure is not None:
        raise failure
    return code


def _nothing(nameless: Nameless) -> str:
    """Say what it may mean that nothing was recorded."""
    if not nameless.count:
        return "no narinfo of the store could be recorded: the log says why"
    return (
        "no narinfo was recorded: if this is a store of the Go program ncps, they are in its"
        " database, which this version cannot take over yet"
    )


async def _rebuild(reactor: Any, settings: Settings) -> tuple[RebuildTally, Nameless]:
    parts = adapters(reactor, settings)
    parts.workers.start()
    parts.stores.start()
    tasks = Tasks(reactor)
    alone = world(
        reactor,
        parts,
        tasks,
        cluster=Cluster(leases=LocalLeases(reactor)),
        notices=LocalNotices(),
        upstreams=Upstreams(reactor, tasks, ()),
        events=Events(),
    )
    try:
        parts.database.open()
        identity = await identity_of(parts, settings, None)
        judge = vetting(settings, identity.key)
        core = core_of(alone, settings, judge, Metrics(), parts)
        making = Rebuild(
            alone,
            adoption=core.adoption,
            vetting=judge,
            proofs=Proofs(
                clock=reactor,
                workers=parts.workers,
                vetting=judge,
                fetch=core.adoption.open,
            ),
        )
        return await making.run(), await making.nameless()
    finally:
        await tasks.stop(0.0)
        parts.database.close()
        await parts.stores.stop(5.0)
        await parts.workers.stop(5.0)
