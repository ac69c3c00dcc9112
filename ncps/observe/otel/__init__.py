"""OpenTelemetry's SDK: its spans, records and exporters. Imported only if telemetry is on."""
