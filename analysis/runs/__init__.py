"""Stored runs as trial rows, phase rows and findings."""
