"""Telemetry by OpenTelemetry's SDK, which is imported only if telemetry is on."""
