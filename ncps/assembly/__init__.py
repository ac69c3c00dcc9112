"""Assembly: makes all parts of the program from the settings, and joins them.

To make a part starts nothing: it does not wait, listen or fetch. `runtime` starts and stops the
parts.
"""
