"""What changed between runs: digests, work, versions, and the facts of every host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wattbench.analysis.model import machine_state
from wattbench.analysis.trends.read import StoredRun


@dataclass(frozen=True)
class FactChange:
    """One fact that differs from the last run that reported it.

    Attributes:
        run: the first run with the new value, by its place among the runs.
        host: whose fact it is; empty for what holds for the whole run.
        what: its name, for example ``kernel`` or ``digest``.
        image: the image it is about; empty for none.
        before: the old value.
        after: the new one.
    """

    run: int
    host: str
    what: str
    image: str
    before: str
    after: str

    def __str__(self) -> str:
        name = f"{self.what} of {self.image}" if self.image else self.what
        if "." in self.what and " " in self.before and " " in self.after:
            return f"{name}: {machine_state.shown_change(self.before, self.after)}"
        return f"{name}: {short(self.before)} → {short(self.after)}"


def short(value: str) -> str:
    """A value as shown: digests by their first twelve digits."""
    head, _, digits = value.partition(":")
    if head in ("sha256", "sha512") and len(digits) > 12:
        return f"{head}:{digits[:12]}"
    return f"{value[:12]}…" if len(value) == 64 and " " not in value else value


def changes(runs: Sequence[StoredRun], levels: pd.DataFrame) -> tuple[FactChange, ...]:
    """Every change, by run.

    Args:
        runs: in the order in which they are compared.
        levels: by :func:`analysis.history.levels.of_runs`: digests and work as the trials report them.
    """
    known: dict[tuple[str, str, str], str] = {}
    found = []
    by_place = _of_trials(levels)
    for place, run in enumerate(runs):
        for key, value in {**_of_run(run), **by_place.get(place, {})}.items():
            before = known.get(key)
            if before is not None and before != value:
                host, what, image = key
                found.append(FactChange(place, host, what, image, before, value))
            known[key] = value
    return tuple(found)


def _of_run(run: StoredRun) -> dict[tuple[str, str, str], str]:
    facts: dict[tuple[str, str, str], str] = {}
    for image, digest in (run.facts.get("digests", {})).items():
        _put(facts, "", "digest", str(image), digest)
    for name, version in (run.facts.get("versions", {})).items():
        _put(facts, "", f"controller's {name}", "", version)
    for host, mine in (run.facts.get("hosts", {})).items():
        for name, value in mine.items():
            if "." in str(name):  # a setting of the machine, by the key that `expect` takes
                _put(facts, str(host), str(name), "", machine_state.shown(value))
            else:
                _put(facts, str(host), str(name).replace("_", " "), "", value)
    return facts


def _of_trials(levels: pd.DataFrame) -> dict[int, dict[tuple[str, str, str], str]]:
    found: dict[int, dict[tuple[str, str, str], str]] = {}
    workload = levels[levels["kind"] == "workload"]
    for run, image, digest, work in zip(
        workload["run"], workload["image"], workload["digest"], workload["images_inferred"],
        strict=True,
    ):  # fmt: skip
        facts = found.setdefault(int(run), {})
        _put(facts, "", "digest", str(image), digest)
        if not pd.isna(work):
            _put(facts, "", "inferences in a trial", str(image), f"{float(work):g}")
    return found


def _put(
    facts: dict[tuple[str, str, str], str], host: str, what: str, image: str, value: Any
) -> None:
    if value is None or (not isinstance(value, (dict, list)) and pd.isna(value)):
        return
    facts[host, what, image] = str(value)


def concerning(
    found: Sequence[FactChange], host: str, images: Sequence[str], after: int, until: int
) -> tuple[FactChange, ...]:
    """Changes that can explain one of a host's images: seen after run ``after``, up to ``until``."""
    return tuple(
        c
        for c in found
        if after < c.run <= until and c.host in ("", host) and (not c.image or c.image in images)
    )


def to_frame(found: Sequence[FactChange], runs: Sequence[StoredRun]) -> pd.DataFrame:
    """One row per change."""
    columns = ["run_id", "night", "host", "what", "image", "before", "after"]
    rows = [
        (runs[c.run].run_id, runs[c.run].night, c.host, c.what, c.image, c.before, c.after)
        for c in found
    ]
    return pd.DataFrame(rows, columns=columns)
