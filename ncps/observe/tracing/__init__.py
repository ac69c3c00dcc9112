"""Traces: spans, and how they follow the work. Needs nothing of OpenTelemetry."""
