"""The command line: its commands and flags, and the commands that run without a daemon."""
