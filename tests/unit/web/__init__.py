"""Tests of the real site, with transports in memory."""
