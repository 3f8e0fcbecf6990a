"""Readings of a host's remote meters around one window, taken beside whatever waits for its end.

Nothing here touches the host. Meters that have to be read while the window lasts have a thread each; the
others are asked when it is over.
"""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from wattbench.remote_meters import raw_file
from wattbench.remote_meters.client import TIMEOUT_S
from wattbench.remote_meters.protocol import (
    Reader,
    RemoteMeterError,
    RemoteSettings,
    Sample,
)

log = logging.getLogger(__name__)

#: Readings on each side of the window: two whole intervals there give the power outside.
EDGE_READINGS = 3


def end_s(settings: RemoteSettings) -> float:
    """How long after a window the last readings of a meter that answers may come, s."""
    return settings.settle_s + (EDGE_READINGS + 2) * settings.interval_s + 2 * TIMEOUT_S


class Watch:
    """Remote meters around a window, as a context: read from entering it to leaving it.

    Leaving waits until the meters show what was after the window, unless by an exception.

    Args:
        readers: the host's remote meters.
        earlier: raw files of the same attempt by name, which a task that was killed has left.
    """

    def __init__(
        self, readers: Sequence[Reader], earlier: Mapping[str, bytes] | None = None
    ) -> None:
        self._readers = tuple(readers)
        self._lines: dict[str, list[bytes]] = {raw_file(r.settings.kind): [] for r in self._readers}
        for name, data in (earlier or {}).items():
            self._lines[name] = data.splitlines(keepends=True)
        self._live = [_Polling(r, self._add) for r in self._readers if r.settings.live]
        self._lock = threading.Lock()
        self._window: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        for reader in self._readers:
            self._add(reader, {"settings": reader.settings.described(reader.units)})
        for polling in self._live:
            polling.start()
        for polling in self._live:
            polling.wait_for(EDGE_READINGS)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for polling in self._live if kind is None else ():
            polling.wait_for(EDGE_READINGS, after_s=polling.reader.settings.settle_s)
        for polling in self._live:
            polling.stop()
        if kind is None:
            for reader in self._readers:
                if not reader.settings.live:
                    self._ask(reader)
        for reader in self._readers:
            reader.client.close()

    @property
    def reads(self) -> bool:
        """Whether there are meters at all."""
        return bool(self._readers)

    def clock(self, ahead_s: float, trip_s: float) -> None:
        """Note how far the host's clock is ahead of this machine's, s, and the round trip that showed it.

        Call it before the window and after it.
        """
        reading = {"unix_s": time.time(), "ahead_s": ahead_s, "trip_s": trip_s}
        for reader in self._readers:
            self._add(reader, {"clock": reading})

    def window(self, start_s: float, end_s: float) -> None:
        """Note the window, on the controller's clock: what is asked afterwards covers it."""
        self._window = (start_s, end_s)

    def files(self) -> dict[str, bytes]:
        """The raw files by name."""
        with self._lock:
            return {name: b"".join(lines) for name, lines in self._lines.items()}

    def _add(self, reader: Reader, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._lock:
            lines = self._lines[raw_file(reader.settings.kind)]
            if lines and not lines[-1].endswith(b"\n"):
                lines.append(b"\n")
            encoded = text.encode()
            if "settings" not in line or encoded not in lines:
                lines.append(encoded)

    def _ask(self, reader: Reader) -> None:
        """Ask for the window and what lies around it, once the server can have all of it."""
        settings = reader.settings
        if self._window is None:
            _fail(self._add, reader, time.time(), RemoteMeterError("was not asked: no window"))
            return
        around_s = EDGE_READINGS * settings.interval_s
        start_s, end_s = self._window[0] - around_s, self._window[1] + settings.settle_s + around_s
        late_s = end_s + settings.interval_s - time.time()  # the last scrape takes its time
        if late_s > 0:
            log.info("waiting %.0f s for the last values of %s", late_s, settings.name)
            time.sleep(late_s)
        try:
            found = reader.history(start_s, end_s)
        except RemoteMeterError as error:
            _fail(self._add, reader, time.time(), error)
            return
        server = {
            "meter": settings.name, "ahead_s": found.ahead_s, "trip_s": found.trip_s,
            "scraped": found.scraped,
        }  # fmt: skip
        self._add(reader, {"server": server})
        for sample in found.samples:
            self._add(reader, _line(settings.name, sample))
        for at_s, why in found.errors:
            _fail(self._add, reader, at_s, RemoteMeterError(why))


class _Polling(threading.Thread):
    """Reads one meter at its interval until it is stopped."""

    def __init__(self, reader: Reader, add: Any) -> None:
        super().__init__(daemon=True, name=f"meter-{reader.settings.name}")
        self.reader, self._add = reader, add
        self._context = contextvars.copy_context()  # whose log a line belongs to
        self._over = threading.Event()
        self._read = threading.Condition()
        self._count = 0
        self._failing = False

    def run(self) -> None:
        """Read, count, and sleep for the rest of the interval."""
        interval_s = self.reader.settings.interval_s
        due = time.monotonic()
        while not self._over.is_set():
            self._context.run(self._once)
            with self._read:
                self._count += 1
                self._read.notify_all()
            due = max(due + interval_s, time.monotonic())
            self._over.wait(due - time.monotonic())

    def _once(self) -> None:
        try:
            sample = self.reader.sample()
        except RemoteMeterError as error:
            _fail(self._add, self.reader, time.time(), error, quiet=self._failing)
            self._failing = True
            return
        except Exception as error:  # noqa: BLE001 - a defect of ours must show in the raw file too
            why = RemoteMeterError(f"can't be read: {type(error).__name__}")
            _fail(self._add, self.reader, time.time(), why, quiet=self._failing)
            self._failing = True
            return
        self._failing = False
        self._add(self.reader, _line(self.reader.settings.name, sample, time.monotonic()))

    def wait_for(self, readings: int, after_s: float = 0.0) -> None:
        """Wait for some more readings, failed ones too, and those of some seconds before them."""
        interval_s = self.reader.settings.interval_s
        more = readings + round(after_s / interval_s + 0.5)
        with self._read:
            wanted = self._count + more
            self._read.wait_for(lambda: self._count >= wanted, more * (interval_s + 2 * TIMEOUT_S))

    def stop(self) -> None:
        """End the readings; one that is under way is given up after its time."""
        self._over.set()
        self.join(3 * TIMEOUT_S)


def _line(name: str, sample: Sample, mono_s: float | None = None) -> dict[str, Any]:
    values = {"mono_s": mono_s, "power": sample.power, "energy": sample.energy}
    return {
        "sample": {
            "meter": name, "unix_s": round(sample.unix_s, 6), "trip_s": round(sample.trip_s, 6),
            **{key: value for key, value in values.items() if value is not None},
        }
    }  # fmt: skip


def _fail(
    add: Any, reader: Reader, at_s: float, error: RemoteMeterError, *, quiet: bool = False
) -> None:
    why = reader.explained(error)
    if not quiet:
        log.warning("%s", why)
    line = {"meter": reader.settings.name, "unix_s": round(at_s, 6), "error": why}
    add(reader, {"error": line})
