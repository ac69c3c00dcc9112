"""Benchmarks: speed and memory beside nginx on the same machine, by `python -m benchmarks`."""
