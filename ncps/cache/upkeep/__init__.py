"""Upkeep: background work such as eviction, sweeps, inspection and agreement with other daemons."""
