"""Metrics, logs, and how late the reactor is: an operator sees these."""
