"""How often a test was run again: what it measured before is then of no use to it."""

from __future__ import annotations

#: Runs of tests that had failed before; ``now``: whether the present one is such.
begun = 0
now = False
