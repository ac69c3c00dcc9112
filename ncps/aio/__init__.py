"""What Twisted lacks: waiting, threads, growing files, listening; nothing of ours above formats."""
