"""Peering: how caches recognize each other, by the trail of a question and by tickets."""
