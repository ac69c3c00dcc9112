"""Assembly: the parts of the program put together from settings, in the order of their needs.

Everything here is construction: nothing waits, listens or fetches. `service` starts and stops
what is made here.
"""
