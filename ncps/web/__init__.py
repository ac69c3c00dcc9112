"""The HTTP floor: requests in, responses out; rules live in the core."""
