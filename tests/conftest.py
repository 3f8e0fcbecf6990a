"""What all tests share."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

# The same examples on every run, so that a change alone decides whether its tests pass; fresh ones,
# and more, with `make explore`. Neither has a deadline: shared machines stall.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("steady")

# Thousands of tests and all libraries are imported and stay: searching them for garbage again and again
# costs a third of the collection, and as much in every worker.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on only what tests make themselves is searched."""
    gc.freeze()
    gc.enable()
