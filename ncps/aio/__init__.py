"""Tools that Twisted lacks: waiting, threads, growing files; imports only formats and ports."""
