"""Progress of long commands on stderr."""

from __future__ import annotations

import time

from wattbench.analysis.model.escaping import note


class Progress:
    """Prints ``COMMAND: text`` on stderr, at most one line per interval; short work prints nothing.

    Args:
        command: the prefix of every line.
        every_s: least time between two lines, and before the first one; 0 prints every line.
    """

    def __init__(self, command: str, every_s: float = 2.0) -> None:
        self._command, self._every_s = command, every_s
        self._next_s = time.monotonic() + every_s

    def __call__(self, text: str) -> None:
        """Print the text if the interval is over."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            note(f"{self._command}: {text}")
