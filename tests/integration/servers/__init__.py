"""Real servers, started by the tests themselves on free loopback ports, root or not."""
