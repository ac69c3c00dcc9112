"""The command line: its words, and commands that need no service."""
