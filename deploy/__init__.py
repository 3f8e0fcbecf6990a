"""A deployment's secrets, start, backup and restore: needs Python's standard library alone."""
