"""Assembly: the parts of the program put together from settings, in the order of their needs.

Everything here is construction: nothing waits, listens or fetches. `runtime` starts and
stops the parts.
"""
