"""The one-shot commands that migrate the database or rebuild it from the store."""

from __future__ import annotations

import sys
from typing import Any

from ncps.aio.lockfile import InUse
from ncps.aio.tasks import Tasks
from ncps.ask.choose import Upstreams
from ncps.assembly.closures import closures
from ncps.assembly.core import core_of
from ncps.assembly.databases import dialect
from ncps.assembly.keys import narinfo_verifier
from ncps.assembly.parts import Foundation, adapters
from ncps.assembly.replicas import identity_of
from ncps.assembly.role import Alone
from ncps.assembly.service import NcpsService
from ncps.assembly.world import world
from ncps.cache.cluster import Cluster
from ncps.cache.narinfo.proof import Proofs
from ncps.cache.upkeep.realisations import Copies, restore
from ncps.cache.upkeep.rebuild import Nameless, Rebuild, RebuildTally
from ncps.commandline.once import run_once
from ncps.database import migrate
from ncps.errors import NcpsError, Refused
from ncps.locks.local import LocalLeases, LocalNotices
from ncps.observe.metrics import Metrics
from ncps.settings.schema.tree import Settings


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def migrate_up(settings: Settings, dry_run: bool) -> int:
    """Apply the pending migrations, or only list them."""
    engine = dialect(settings)
    done = migrate.status(engine).pending if dry_run else migrate.up(engine)
    for migration in done:
        _say(f"{'pending' if dry_run else 'applied'} {migration.version:04} {migration.name}")
    if not done:
        _say("the schema is up to date")
    return 0


def migrate_status(settings: Settings) -> int:
    """List the applied and the pending migrations."""
    found = migrate.status(dialect(settings))
    for word, migrations in (("applied", found.applied), ("pending", found.pending)):
        for migration in migrations:
            _say(f"{word} {migration.version:04} {migration.name}")
    return 0


def rebuild(settings: Settings) -> int:
    """Fill the catalog from the store; the daemon must not run.

    Raises NcpsError if it fails, or if it could record nothing although the store was not empty.
    """

    async def work(reactor: Any) -> None:
        service = NcpsService(settings, reactor)
        try:
            service.check()
            tally, nameless, copies = await _rebuild(reactor, settings)
        except InUse as error:
            raise Refused(
                f"{error.holder}; stop that daemon first: no other process may use store and"
                " database during a rebuild. Start the daemon again afterwards"
            ) from error
        finally:
            service.release_locks()
        _say(
            f"{tally.narinfos} narinfos and {tally.nars} NARs recorded,"
            f" {tally.without_bytes} narinfos without their NAR, {tally.refused} refused"
        )
        if copies.restored or copies.refused:
            _say(f"{copies.restored} realisations recorded, {copies.refused} refused")
        if nameless.count:
            _say(
                f"{nameless.size} bytes in {nameless.count} NARs have no narinfo in the store: they"
                " stay, and ncps records each of them when a client asks for its URL"
            )
        if not tally.narinfos and (tally.refused or nameless.count):
            raise NcpsError(_nothing(nameless))

    return run_once(work)


def _nothing(nameless: Nameless) -> str:
    """Explain why nothing was recorded."""
    if not nameless.count:
        return "ncps could not record any narinfo of the store: the log says why"
    return (
        "no narinfo was recorded: a store of the Go program has them in its database only,"
        " which this version cannot read yet"
    )


async def _rebuild(reactor: Any, settings: Settings) -> tuple[RebuildTally, Nameless, Copies]:
    metrics = Metrics()
    parts = adapters(reactor, settings, metrics)
    parts.workers.start()
    parts.stores.start()
    tasks = Tasks(reactor)
    base = Foundation(
        reactor=reactor, settings=settings, parts=parts, metrics=metrics, role=Alone(reactor)
    )
    alone = world(
        base,
        tasks,
        cluster=Cluster(
            leases=LocalLeases(reactor, base.metrics),
            patience_s=settings.cache.download.poll_timeout_s,
            pace=settings.cache.upstream,
        ),
        notices=LocalNotices(),
        upstreams=Upstreams(reactor, tasks, (), base.metrics),
    )
    try:
        parts.database.open()
        identity = await identity_of(parts, settings, None)
        verifier = narinfo_verifier(settings, identity)
        core = core_of(alone, base, verifier)
        verbs = closures(alone, base, core)
        await verbs.backup.restore()  # first, so that no row is made for a blocked path
        making = Rebuild(
            alone,
            adoption=core.adoption,
            vetting=verifier,
            proofs=Proofs(
                clock=reactor,
                workers=parts.workers,
                vetting=verifier,
                fetch=core.adoption.open,
            ),
        )
        tally = await making.run()
        await verbs.pinning.look_after()
        copies = await restore(alone, core.realisations)
        return tally, await making.nameless(), copies
    finally:
        await tasks.stop(0.0)
        parts.database.close()
        await parts.stores.stop(5.0)
        await parts.workers.stop(5.0)
