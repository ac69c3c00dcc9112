"""The cache core: rules over ports and formats; no HTTP, no SQL."""
