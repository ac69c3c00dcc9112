"""Settings: declared once, read from three sources, one frozen tree.

`schema` declares what there is, `declare` says how, `load` reads it. Modules below the assembly may
import `schema` and the kinds of values, and nothing else of this package.
"""
