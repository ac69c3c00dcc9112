"""Faulty machines: programs that tests start in place of `ncps`, each with one fault.

They replace a function before the program imports it. So this package imports nothing, above all
not the program, which the packages of tests do.
"""
