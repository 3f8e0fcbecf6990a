"""Measured effects: what our own runs say that a finding costs.

A JSON or YAML list of objects with the fields of ``Effect``, for example ::

    - {code: bytecode-missing, change: "bytecode: absent → compiled", energy_pct: -3.1,
       low_pct: -3.6, high_pct: -2.6, run_id: ablation-20261101T080000Z-1a2b3c, energy_source: measured}
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.finding_codes import IMAGE_CODES
from wattbench.analysis.model.findings import Effect
from wattbench.analysis.model.trials import ENERGY_SOURCES
from wattbench.analysis.storage.documents import read_yaml

_FIELDS = {field.name: field.type for field in dataclasses.fields(Effect)}


def load(path: Path) -> dict[str, Effect]:
    """Effects by code; of several for a code the one with the narrowest interval.

    Raises:
        InputError: can't be read, or an entry is not an effect.
    """
    try:
        entries = read_yaml(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}); give a JSON or YAML list of effects"
        ) from error
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: a list of effects is needed, each with {', '.join(sorted(_FIELDS))}"
        )
    best: dict[str, Effect] = {}
    for place, one in enumerate(entries, start=1):
        effect = _effect(f"{path}: effect {place}", one)
        other = best.get(effect.code)
        if other is None or _width(effect) < _width(other):
            best[effect.code] = effect
    return best


def _width(effect: Effect) -> float:
    return effect.high_pct - effect.low_pct


def _effect(where: str, entry: Any) -> Effect:
    if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
        raise InputError(f"{where}: needs exactly the keys {', '.join(sorted(_FIELDS))}")
    for name in ("energy_pct", "low_pct", "high_pct"):
        value = entry[name]
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            raise InputError(f"{where}: {name} {value!r} is not a number; give percent")
    if not entry["low_pct"] <= entry["energy_pct"] <= entry["high_pct"]:
        raise InputError(
            f"{where}: energy_pct lies outside low_pct … high_pct; correct the interval"
        )
    if entry["code"] not in IMAGE_CODES:
        raise InputError(f"{where}: code {entry['code']!r} is none of {', '.join(IMAGE_CODES)}")
    if entry["energy_source"] not in ENERGY_SOURCES:
        raise InputError(f"{where}: energy_source must be one of {', '.join(ENERGY_SOURCES)}")
    return Effect(**entry)
