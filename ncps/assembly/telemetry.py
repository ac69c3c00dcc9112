"""Telemetry, as the settings define it; if it is off, its libraries are not imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from attrs import evolve

from ncps.aio.imports import how_to_install
from ncps.aio.tasks import Tasks
from ncps.assembly.parts import Adapters, Foundation
from ncps.cache.upkeep.identity import CacheIdentity
from ncps.errors import Refused
from ncps.observe.tracing.calls import called
from ncps.settings.schema.tree import Settings

if TYPE_CHECKING:
    from ncps.observe.otel.telemetry import Telemetry

_PACKAGES: Final = (
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry.exporter.otlp.proto.http",
)
_PACKAGES_TO_INSTALL: Final = (
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http",
)


def is_wanted(settings: Settings) -> bool:
    """Whether telemetry is on; the standard variable OTEL_SDK_DISABLED turns it off."""
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return settings.opentelemetry.enabled and not is_disabled


def refuse_without_library(settings: Settings) -> None:
    """Raise Refused if telemetry is wanted, and OpenTelemetry's packages are not installed."""
    if not is_wanted(settings):
        return
    for package in _PACKAGES:
        if not _is_installed(package):
            raise Refused(
                f"otel-enabled needs OpenTelemetry, and {package} is not installed:"
                f" {how_to_install(*_PACKAGES_TO_INSTALL)}, or leave otel-enabled out"
            )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # a parent package is missing
        return False


def telemetry_of(base: Foundation, identity: CacheIdentity) -> Telemetry | None:
    """Make the telemetry of this process; None if it is off.

    Raises Refused if a variable of OpenTelemetry cannot be used.
    """
    settings = base.settings
    if not is_wanted(settings):
        return None
    from ncps.observe.otel.telemetry import Subject, Telemetry  # noqa: PLC0415 - only if it is on

    wanted = settings.opentelemetry
    is_s3 = settings.cache.storage.local is None
    facts: dict[str, str | int] = {
        "service.name": wanted.service_name,
        "ncps.cluster_uuid": identity.cluster,
        "ncps.db_type": settings.cache.database_url.dialect,
        "ncps.lock_type": settings.cache.lock.backend,
        "ncps.storage_type": "s3" if is_s3 else "local",
    }
    if _is_default(settings, "service-name") and _names_service(os.environ):
        del facts["service.name"]
    is_ours = not (_is_default(settings, "sampling-ratio") and "OTEL_TRACES_SAMPLER" in os.environ)
    subject = Subject(
        facts=facts, ratio=wanted.sampling_ratio if is_ours else None, level=settings.log.level
    )
    return Telemetry(base.reactor, wanted, subject, base.metrics)


def _is_default(settings: Settings, name: str) -> bool:
    return settings.origin(f"opentelemetry.{name}") == "default"


def _names_service(environ: Mapping[str, str]) -> bool:
    return "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").replace(" ", "")


def begin(base: Foundation, telemetry: Telemetry | None, tasks: Tasks) -> Foundation:
    """Start the telemetry; return a foundation whose adapters make spans, if traces are on."""
    if telemetry is None:
        return base
    telemetry.start()
    tasks.start("metrics for a collector", telemetry.read_metrics())
    if not telemetry.tracer.is_on:
        return base
    return evolve(base, parts=_called(base.parts, base.settings), tracer=telemetry.tracer)


def _called(parts: Adapters, settings: Settings) -> Adapters:
    """Return adapters whose calls are spans."""
    system = {"db.system.name": settings.cache.database_url.dialect}
    stores = parts.stores
    return evolve(
        parts,
        catalog=called(parts.catalog, "catalog", system),
        realisations=called(parts.realisations, "realisations", system),
        stores=evolve(
            stores,
            nars=called(stores.nars, "storage.nars"),
            narinfos=called(stores.narinfos, "storage.narinfos"),
            realisations=called(stores.realisations, "storage.realisations"),
        ),
    )
