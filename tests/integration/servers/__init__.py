"""Real servers that the tests start on free loopback ports, as root or another user."""
