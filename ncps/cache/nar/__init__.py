"""NARs: fetched, judged, published, served and healed."""
