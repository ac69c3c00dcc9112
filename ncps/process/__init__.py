"""Several processes on one machine: a supervisor, its workers, and their communication."""
