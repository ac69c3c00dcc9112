"""All upstreams as one source: whom to ask, in which order, and what their answers amount to."""
