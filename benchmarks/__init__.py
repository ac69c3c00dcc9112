"""Benchmarks: speed and memory compared with nginx on the same machine: `python -m benchmarks`."""
