"""The cache core: rules over ports and formats, without HTTP and SQL."""
