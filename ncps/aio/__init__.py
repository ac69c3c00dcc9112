"""Tools that Twisted lacks: waiting, threads, growing files; nothing of ours above ports."""
