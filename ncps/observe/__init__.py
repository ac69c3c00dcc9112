"""Metrics, logs, traces, and the delay of the reactor, for operators."""
