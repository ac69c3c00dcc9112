"""OpenTelemetry's SDK: what it records, and who takes it. Imported only where it is wanted."""
