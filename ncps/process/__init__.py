"""Several processes on one machine: a supervisor, its workers, and how they reach each other."""
