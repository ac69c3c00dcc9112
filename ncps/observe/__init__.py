"""What an operator sees: metrics, logs, and how late the reactor is."""
