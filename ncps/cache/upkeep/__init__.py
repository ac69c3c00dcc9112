"""Work that no request asks for: eviction, sweeps, inspection, agreement with other daemons."""
