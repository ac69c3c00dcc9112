"""The contracts of the ports, run on the fakes: what tests stand on must itself be right."""
