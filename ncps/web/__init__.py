"""The HTTP floor: it reads requests and writes responses; the core has the rules."""
