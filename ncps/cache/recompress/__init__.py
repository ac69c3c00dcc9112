"""Recompression: makes twins of stored NARs in zstd while the machine is idle (D4)."""
