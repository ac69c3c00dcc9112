"""NARs: fetching, judging, publishing, serving and healing them."""
