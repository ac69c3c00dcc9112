"""The contracts of the ports, run on the fakes that other tests use."""
