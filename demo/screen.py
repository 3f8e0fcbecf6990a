"""Progress of a run on a terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from wattbench.progress import HostProgress


class Screen:
    """Shows where the hosts stand: a redrawn block on a terminal, else a line for what is new."""

    def __init__(
        self,
        out: TextIO = sys.stdout,
        quiet_s: float = 15,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares an empty screen.

        Args:
            out: where to write.
            quiet_s: off a terminal, how long a mere change of detail stays unsaid.
            clock: seconds, monotonic.
        """
        self._out = out
        self._quiet_s = quiet_s
        self._clock = clock
        self._drawn = 0
        self._said: dict[str, tuple[HostProgress, float]] = {}

    def show(self, hosts: Sequence[HostProgress]) -> None:
        """Shows the present state."""
        if self._out.isatty():
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            self._out.write(up + "\x1b[J" + "".join(f"  {host}\n" for host in hosts))
            self._drawn = len(hosts)
        else:
            for host in hosts:
                self._say(host)
        self._out.flush()

    def _say(self, host: HostProgress) -> None:
        now = self._clock()
        before, at = self._said.get(host.host, (None, 0.0))
        news = before is None or before.stage != host.stage
        if news or (before != host and now - at >= self._quiet_s):
            self._out.write(f"  {host}\n")
            self._said[host.host] = (host, now)
