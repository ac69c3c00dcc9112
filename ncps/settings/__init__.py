"""Settings: declared once, read from three sources, one frozen tree.

`schema` declares the settings by means of `declare`, and `load` reads them. Modules below the
assembly may import `schema` and the kinds of values, and nothing else of this package.
"""
