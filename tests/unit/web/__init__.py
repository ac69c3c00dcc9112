"""The real site on transports in memory."""
