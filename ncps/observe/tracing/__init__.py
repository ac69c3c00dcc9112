"""Traces: spans, and how they follow the work, without any part of OpenTelemetry."""
