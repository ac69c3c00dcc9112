"""All upstreams as one source: asking them in an order, and deciding on an answer."""
