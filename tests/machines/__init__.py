"""Machines that are ill: programs that tests start in place of `ncps`, each spoilt in one way.

They spoil a function before the program imports it. So this package imports nothing, least of all
the program, as the packages of the tests themselves do.
"""
