"""Recompression: stored NARs get a twin in zstd while the machine is idle (D4)."""
