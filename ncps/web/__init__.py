"""The HTTP layer: it reads requests and writes responses; the core has the rules."""
