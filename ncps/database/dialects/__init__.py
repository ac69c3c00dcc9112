"""The differences of the database engines, one module each; drivers are imported when chosen."""
