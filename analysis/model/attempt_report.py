"""The agent's report of one attempt, typed: ``attempt.json`` is read here and nowhere else.

A field of another type than agreed is a fault of that attempt: it is named in :attr:`AttemptReport.faults`
and read as absent. An absent field is not a fault: agents of other versions report less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from wattbench.analysis.model.records import EdgeReadings, Output, fits_edge

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Mark:
    """An edge of the window on both clocks, with the counters that were read there.

    Attributes:
        unix_s: wall clock; None: not marked.
        mono_s: monotonic clock.
        readings: the mark as it was written, counters under each meter's own key.
    """

    unix_s: float | None = None
    mono_s: float | None = None
    readings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class AttemptReport:
    """What the agent reports of one attempt.

    Attributes:
        state: ``done``, ``failed``, ``timeout``, ``lost`` or ``killed``.
        message: why it did not end well.
        rc: exit code of the workload.
        started: the window's start.
        ended: the window's end.
        gpus: GPUs that the attempt was given; None: not reported.
        meter_kind: the configured meter's kind.
        late: whether it was executed after its block.
        before: the platform's state before the window.
        after: the same after it.
        offset_before_s: wall clock minus monotonic clock before the window.
        offset_after_s: the same after it.
        boot_before: names the boot of the host before the window.
        boot_after: the same after it.
        calls_unix_s: when the controller called the host; None: not reported.
        rested_s: how long the host cooled down before, s.
        rest: how it did.
        meter: ``argv``, ``rc``, ``version``, ``outlived``.
        container: of the container; None: there was none.
        output: how much the workload printed; None: not reported.
        files: raw file → SHA-256 that the host took when the attempt ended.
        stored: object beside the report → SHA-256 that it had when it was put into the store.
        faults: fields that are not what was agreed.
    """

    state: str = "lost"
    message: str = ""
    rc: int | None = None
    started: Mark = Mark()
    ended: Mark = Mark()
    gpus: tuple[str, ...] | None = None
    meter_kind: str | None = None
    late: bool = False
    before: EdgeReadings = field(default_factory=lambda: EdgeReadings())
    after: EdgeReadings = field(default_factory=lambda: EdgeReadings())
    offset_before_s: float | None = None
    offset_after_s: float | None = None
    boot_before: str | None = None
    boot_after: str | None = None
    calls_unix_s: tuple[float, ...] | None = None
    rested_s: float | None = None
    rest: Mapping[str, object] = field(default_factory=dict)
    meter: Mapping[str, object] = field(default_factory=dict)
    container: Mapping[str, object] | None = None
    output: Output | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: object) -> AttemptReport:
        """Read a report; never raises."""
        top = _Fields(document, "", [])
        spec, command = top.fields("spec"), top.fields("command")
        edges, clock, boot = top.fields("edges"), top.fields("clock"), top.fields("boot")
        schema = top.number("schema")
        if schema is not None and schema > SCHEMA_VERSION:
            top.faults.append(f"schema {schema:g}, this version reads up to {SCHEMA_VERSION}")
        rc = top.number("rc")
        return cls(
            state=top.text("state") or "lost",
            message=(top.text("message") or "").strip(),
            rc=_whole(command.number("rc") if rc is None else rc),
            started=command.fields("started").mark(),
            ended=command.fields("ended").mark(),
            gpus=spec.texts("gpus"),
            meter_kind=spec.fields("meter").text("kind"),
            late=spec.values.get("late") is True,
            before=edges.fields("before").readings(),
            after=edges.fields("after").readings(),
            offset_before_s=clock.number("unix_minus_mono_before"),
            offset_after_s=clock.number("unix_minus_mono_after"),
            boot_before=boot.text("before"),
            boot_after=boot.text("after"),
            calls_unix_s=top.stamps("connections"),
            rested_s=top.fields("rest").number("rested_s"),
            rest=top.fields("rest").values,
            meter=top.fields("meter").values,
            container=top.fields("container").values or None,
            output=top.fields("output").output(),
            files=top.fields("files").sums(),
            stored=top.fields("stored").sums(),
            faults=tuple(dict.fromkeys(top.faults)),
        )


class _Fields:
    """The fields of one object of the document; what is of another type is a fault."""

    def __init__(self, value: object, path: str, faults: list[str]) -> None:
        self.path, self.faults = path, faults
        self.values: Mapping[str, object] = value if isinstance(value, Mapping) else {}
        if value is not None and not isinstance(value, Mapping):
            self._fault(path or "the report", value, "an object")

    def _fault(self, path: str, value: object, wanted: str) -> None:
        text = repr(value)
        self.faults.append(
            f"{path}: {text if len(text) <= 40 else text[:37] + '…'} is not {wanted}"
        )

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def fields(self, key: str) -> _Fields:
        return _Fields(self.values.get(key), self._at(key), self.faults)

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if value is not None:
            self._fault(self._at(key), value, "a number")
        return None

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self._fault(self._at(key), value, "text")
            return None
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        value = self.values.get(key)
        if isinstance(value, list | tuple):
            return tuple(map(str, value))
        if value is not None:
            self._fault(self._at(key), value, "a list")
        return None

    def stamps(self, key: str) -> tuple[float, ...] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self._fault(self._at(key), value, "a list")
            return None
        calls = [_Fields(v, f"{self._at(key)}[{i}]", self.faults) for i, v in enumerate(value)]
        return tuple(t for call in calls if (t := call.number("unix_s")) is not None)

    def readings(self) -> EdgeReadings:
        """Readings at an edge, without those of another type."""
        for key, value in self.values.items():
            if not fits_edge(key, value):
                self._fault(self._at(key), value, "a reading of the agreed type")
        fitting = {key: value for key, value in self.values.items() if fits_edge(key, value)}
        return cast("EdgeReadings", fitting)

    def mark(self) -> Mark:
        return Mark(self.number("unix_s"), self.number("mono_s"), self.values)

    def sums(self) -> dict[str, str]:
        entries = ((str(name), self.fields(str(name))) for name in self.values)
        return {name: sum_ for name, entry in entries if (sum_ := entry.text("sha256"))}

    def output(self) -> Output | None:
        if not self.values:
            return None
        printed, kept = self.number("stdout_bytes"), self.number("kept_bytes")
        if printed is None or kept is None:
            return None
        errors = self.number("stderr_bytes") or 0.0
        return Output(int(printed + errors), int(kept), bool(self.values.get("cut")))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
