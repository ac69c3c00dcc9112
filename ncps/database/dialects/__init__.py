"""What differs between database engines, one module each; drivers are imported when chosen."""
