"""The differences of the database engines, a module for each; it imports its driver when used."""
