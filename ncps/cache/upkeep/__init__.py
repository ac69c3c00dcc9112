"""What the cache does unasked: eviction, sweeps, inspection, agreement with other daemons."""
