"""All upstreams as one source: the order in which they are asked, and the verdict."""
