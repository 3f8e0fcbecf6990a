"""Sampling threads: the readers' CSV files of an attempt."""

from __future__ import annotations

import contextlib
import os
import threading

from wattbench.worker.agent.base import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wattbench.worker.agent.documents import AttemptSpec
    from wattbench.worker.agent.meters import Meter
    from wattbench.worker.agent.sysfs import ContainerCpu


class Sampler(threading.Thread):
    """Writes one CSV row at once, one every period, and one at the end."""

    def __init__(
        self, path: str, columns: list[str], read: Callable[[], list[Any]], period_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._file = open(path, "w", encoding="utf-8")
        self._read, self._period_s = read, period_s
        self._over = threading.Event()
        self.error: str | None = None
        self._file.write(",".join(["unix_s", "mono_s", *columns]) + "\n")
        self._row()

    def _row(self) -> None:
        now = stamp()
        cells = ["%.6f" % now["unix_s"], "%.6f" % now["mono_s"]]
        cells += ["" if value is None else str(value) for value in self._read()]
        self._file.write(",".join(cells) + "\n")
        self._file.flush()

    def run(self) -> None:
        """Sample until :meth:`finish`."""
        try:
            while not self._over.wait(self._period_s):
                self._row()
            self._row()
        except Exception as error:  # noqa: BLE001 - a meter's failure is the attempt's to report
            self.error = str(error)

    def finish(self) -> None:
        """Take the last row and close the file."""
        self._over.set()
        self.join(10)
        with contextlib.suppress(OSError):
            self._file.close()


def start_samplers(
    spec: AttemptSpec, folder: str, readers: Sequence[Meter], containers: ContainerCpu
) -> list[Sampler]:
    """Start every meter that can be read on this host, whichever one is configured."""
    interval_s, kind = spec["meter"]["interval_ms"] / 1000, spec["meter"]["kind"]
    samplers = []
    for meter in readers:
        meter.begin(spec, folder)
        columns = meter.columns()
        if columns:
            period_s = meter.period_s(interval_s, meter.kind == kind)
            path = os.path.join(folder, meter.files[0])
            samplers.append(Sampler(path, columns, meter.row, period_s))
    if spec["runtime"] == "docker" and containers.needs_sampling():
        samplers.append(Sampler(os.devnull, [], lambda: [containers.read()], 1.0))
    for sampler in samplers:
        sampler.start()
    return samplers
