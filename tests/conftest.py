"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run, so that a change alone decides whether its tests pass; fresh ones,
# and more, with `make explore`. Neither has a deadline: shared machines stall.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("steady")
