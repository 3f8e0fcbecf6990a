"""Deployment: secrets, start, backup and restore with the standard library (`pin` needs .venv)."""
