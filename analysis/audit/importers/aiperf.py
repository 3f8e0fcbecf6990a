"""Importer of AIPerf's GPU telemetry: ``gpu_telemetry_export.jsonl``, one record per GPU and sample.

A record has ``timestamp_ns``, ``gpu_index`` and ``telemetry_data`` with power in W and a counter in MJ, under
names of the vendor since AIPerf 0.11 (``nvidia_power_usage``, ``amd_power``, …).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.importers import Context, Files, records
from wattbench.analysis.audit.importers.records import Course

TELEMETRY = "aiperf"
_POWER = ("gpu_power_usage", "nvidia_power_usage", "amd_power")
_USAGE = ("gpu_utilization", "nvidia_gpu_utilization", "amd_gfx_activity")


class AIPerf:
    """Power records of AIPerf."""

    layout = "aiperf"
    recognised_by = "AIPerf's `gpu_telemetry_export.jsonl` (`timestamp_ns`, `telemetry_data`)"
    rank = 30
    leads = frozenset({TELEMETRY})

    def claims(self, path: str, head: bytes) -> str | None:  # noqa: ARG002
        """Lines of JSON with telemetry."""
        return TELEMETRY if b'"telemetry_data"' in head and b'"timestamp_ns"' in head else None

    def read(self, files: Files, context: Context) -> Campaign:
        """Import one run per file; treatments come from the paths."""
        return records.of_courses(
            self, TELEMETRY, files, context, _course, "not a telemetry record"
        )


IMPORTER = AIPerf()


def _course(text: str) -> tuple[Course, list[int]]:
    course, bad = Course(), []
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        try:
            sample = json.loads(row)
            data = sample["telemetry_data"]
            time_s = float(sample["timestamp_ns"]) * 1e-9
            gpu = f"gpu{int(sample.get('gpu_index') or 0)}"
        except (ValueError, KeyError, TypeError, RecursionError):
            bad.append(line)
            continue
        if not isinstance(data, Mapping):
            bad.append(line)
            continue
        watts = _first(data, _POWER)
        if watts is not None:
            course.add(gpu, time_s, watts)
        usage = _first(data, _USAGE)
        if usage is not None:
            course.usage.setdefault(gpu, []).append(usage)
    return course, bad


def _first(data: Mapping[str, object], names: tuple[str, ...]) -> float | None:
    numbers = (records.number(data[name]) for name in names if data.get(name) is not None)
    return next((value for value in numbers if value is not None), None)
