"""Test bed on one machine, and the demo that runs on it; see `python -m demo --help`."""
