"""Importer of folders of raw EnergiBridge logs and nothing else, tens of thousands of them.

Such logs differ in a few numbers. Those without an oddity stay columns from the reduction to
``trials.csv``; of trials whose probes end alike one is made a record and probed, and so is each of which
something is found. What is left of a trial are its columns: memory grows with the rows of ``trials.csv``
only. The outcome is that of :mod:`analysis.audit.study`.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wattbench.analysis.audit import processes
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.discover import Found as Files
from wattbench.analysis.audit.importers import raw_logs, reduce
from wattbench.analysis.audit.importers.reduce import (
    Batch,
    BoolArray,
    FloatArray,
    IntArray,
    Reduced,
)
from wattbench.analysis.audit.mapping import Mapping as CampaignMapping
from wattbench.analysis.checks import trial as limits
from wattbench.analysis.checks.columns import STATES, DomainKey, Trials
from wattbench.analysis.checks.outcome import Found
from wattbench.analysis.checks.tally import Tally
from wattbench.analysis.meters.curves import SAMPLE_S
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import COLUMNS

#: A reduced log: the logs that it was reduced with, and its place among them.
Place = tuple[Sequence[Reduced] | Batch, int]


@dataclass(frozen=True)
class Log:
    """One raw log: its path below the campaign's root, and whose it is."""

    path: str
    image: str
    kind: str


@dataclass
class Part:
    """Some logs, judged.

    Attributes:
        trials: in any order.
        tally: what the probes came to.
        logs: what each trial was made of.
    """

    trials: Trials
    tally: Tally
    logs: list[Place]


def suits(found: Files) -> bool:
    """Whether a campaign is raw logs and nothing that they could be held against."""
    others = (found.logs, found.measurements, found.derived, found.run_tables)
    return bool(found.raw) and not any(others)


def read(
    root: Path,
    name: str,
    found: Files,
    mapping: CampaignMapping,
    progress: Callable[[str], None],
    limit: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> Campaign:
    """Import a folder.

    Args:
        root: the campaign.
        name: its name in ``run_id``.
        found: its files.
        mapping: the user's.
        progress: is told in words how far it is.
        limit: bytes of a raw file beyond which it is not read.
        meanwhile: is called once while other processes are reading.
    """
    groups = raw_logs.groups_of(root, found, mapping)
    owner = {path: key for key, group in groups.items() for path in group["raw"]}
    logs = {path: Log(path, *owner[path]) for path in found.raw}
    chunks = processes.chunks(found.raw)
    judge = partial(_judge, str(root), name, mapping, limit)
    with processes.readers(str(root), found.raw, limit) as run:
        results = run(judge, [[logs[p] for p in chunk] for chunk in chunks])
        meanwhile()
        parts: list[Part] = []
        for part in results:
            parts.append(part)
            progress(f"{sum(map(len, chunks[: len(parts)]))} of {len(logs)} raw files")
        # Which logs ended early shows only beside the others of their image.
        late = _ended_early(parts)
        again = [[logs[p] for p in chunks[i]] for i in late]
        for i, part in zip(late, run(partial(judge, short=_reasons(parts)), again), strict=True):
            parts[i] = part
    whole = _together(parts, _in_order(parts, list(groups)))
    trials = whole.trials
    trials.made = lambda i: _record(
        name, mapping, trials.rows["image"][i], trials.rows["kind"][i], whole.logs[i]
    )
    raw_logs.number(trials.rows)
    naive = zip(trials.subjects, trials.naive_j, trials.rows["duration_s"], strict=True)
    return Campaign(
        name=name,
        layout="study",
        columns=(trials, whole.tally),
        summaries={s: (j, seconds) for s, j, seconds in naive if (j or 0) > 0},
        imported_rule=raw_logs.IMPORTED_WITHOUT_LOGS,
        repaired_rule=raw_logs.REPAIRED,
    )


def _judge(
    root: str,
    name: str,
    mapping: CampaignMapping,
    limit: int,
    logs: list[Log],
    short: Mapping[str, str] | None = None,
) -> Part:
    """Reduce some logs and judge each.

    Args:
        root: the campaign's folder.
        name: its name.
        mapping: the user's.
        limit: bytes of a log beyond which it is not read.
        logs: the logs.
        short: paths of logs that ended early → why this is said.
    """
    owners = {log.path: (log.image, log.kind) for log in logs}
    short = short or {}
    batches, odd = reduce.reduce_files(root, list(owners), limit, mapping.columns)
    parts = []
    for batch in batches:
        columns = _Columns(batch)
        sound = columns.sound & [path not in short for path in batch.paths]
        odd += [batch[i] for i in np.flatnonzero(~sound).tolist()]
        if sound.any():
            parts.append(
                _of_columns(name, mapping, owners, columns, np.flatnonzero(sound).tolist())
            )
    if odd:
        parts.append(_of_records(name, mapping, owners, odd, short))
    return parts[0] if len(parts) == 1 else _together(parts, range(len(logs)))


def _record(name: str, mapping: CampaignMapping, image: str, kind: str, place: Place) -> Record:
    logs, i = place
    return raw_logs.record_of(name, image, kind, None, logs[i], mapping, None)


# ------------------------------------------------------------------------------- one by one


def _of_records(
    name: str,
    mapping: CampaignMapping,
    owners: Mapping[str, tuple[str, str]],
    odd: Sequence[Reduced],
    short: Mapping[str, str],
) -> Part:
    """Logs about which something is odd."""
    logs: list[Place] = [(odd, i) for i in range(len(odd))]
    records = []
    for raw, log in zip(odd, logs, strict=True):
        record = _record(name, mapping, *owners[raw.path], log)
        reason = short.get(raw.path)
        records.append(raw_logs.failed(record, reason) if reason else record)
    return Part(replace(Trials.of(records), records=None), Tally.of(records), logs)


# ----------------------------------------------------------------------------------- in columns


class _Columns:
    """What :func:`study.record_of` computes of one log, for all logs of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.seconds = np.array([round(s, 6) for s in (batch.last_s - batch.first_s).tolist()])
        # A counter that stands at 0 is no domain of this CPU.
        self.counted = [
            ~((e.start_j == 0.0) & (e.joules == 0.0)) & raw_logs.is_counted(e.name)
            for e in batch.energies
        ]
        self.energy_j = self.total([e.joules for e in batch.energies])
        self.wraps: IntArray = np.sum([e.wraps for e in batch.energies], axis=0, dtype=np.int64)
        self.sound: BoolArray = (
            np.isfinite([self.energy_j, *(e.joules for e in batch.energies)]).all(axis=0)
            & (self.seconds > 0)
            & ~(batch.last_delta_s >= 0.5 * batch.interval_s)
            & [i not in batch.notes for i in range(len(batch))]
            & (len({e.name for e in batch.energies}) == len(batch.energies))
        )

    def total(self, values: Sequence[FloatArray], prefix: str = "") -> FloatArray:
        """Sums over the counted domains of a name; NaN where there is none."""
        total = np.full(len(self.batch), np.nan)
        for energy, counted, mine in zip(self.batch.energies, self.counted, values, strict=True):
            if energy.name.startswith(prefix):
                total = np.where(counted, np.where(np.isnan(total), mine, total + mine), total)
        return total

    def part_j(self, prefix: str) -> list[float | None]:
        """Joules of the counted domains of a name."""
        return _told(self.total([e.joules for e in self.batch.energies], prefix))

    def doubt_j(self) -> list[float | None]:
        """Uncertainty of the total."""
        power = self.batch.courses.get("GPU_POWER", {"max": 0.0, "min": 0.0})
        swing = self.batch.interval_s * (power["max"] - power["min"]) / 2
        of_each = [
            2 * SAMPLE_S * e.joules / self.seconds if e.cumulative else swing
            for e in self.batch.energies
        ]
        return _told(self.total(of_each))

    def naive_j(self) -> list[float | None]:
        """Last minus first value of the package's counter."""
        mine = next((e for e in self.batch.energies if e.name == "package"), None)
        return [None] * len(self.batch) if mine is None else _told(mine.naive_j)

    def wraps_of(self, i: int) -> Found:
        """What is found of a log whose counters wrapped."""
        batch = self.batch
        wrapped = [(e.name, int(e.wraps[i])) for e in batch.energies if e.wraps[i]]
        lines = {e.column: e.wrapped[i][1][-1] for e in batch.energies if e.wraps[i]}
        where = {"file": batch.paths[i], "line": 1}
        return limits.wraps_found(where, int(self.wraps[i]), wrapped, lines)

    def signs(self) -> list[BoolArray]:
        """What the probes of a sound log look at: they end alike where all of it is equal."""
        batch, courses = self.batch, self.batch.courses
        signs = [
            *self.counted,
            self.energy_j <= 0,
            *(e.joules == 0 for e in batch.energies),
            self.wraps > 0,
            batch.interval_s / self.seconds > limits.NOTABLE_EDGE,
        ]
        if cpu := courses.get("CPU_USAGE"):
            signs += [cpu["first"] > limits.BUSY_AT_START_PCT, cpu["mean"] > limits.BUSY_IDLE_PCT]
        if swap := courses.get("USED_SWAP"):
            signs.append(swap["max"] - swap["first"] > limits.SWAP_GROWTH)
        if usage := courses.get("GPU_USAGE"):
            signs += [
                usage["max"] > limits.IDLE_GPU_PCT,
                usage["max"] - usage["min"] >= limits.STALE_USAGE_PCT,
                batch.rows > limits.STALE_SAMPLES,
            ]
        if power := courses.get("GPU_POWER"):
            signs.append(power["min"] == power["max"])
        return signs


def _of_columns(
    name: str,
    mapping: CampaignMapping,
    owners: Mapping[str, tuple[str, str]],
    columns: _Columns,
    sound: Sequence[int],
) -> Part:
    """Logs of a batch about which nothing is odd."""
    batch = columns.batch
    mine = [owners[path] for path in batch.paths]
    scopes = _names({e.name: c for e, c in zip(batch.energies, columns.counted, strict=True)})
    whole = len(batch)
    rows: dict[str, list[Any]] = {column: [None] * whole for column in COLUMNS} | {
        "run_id": [name] * whole,
        "host": [mapping.host] * whole,
        "kind": [kind for _, kind in mine],
        "image": [image for image, _ in mine],
        "run": [raw_logs.run_of(path, mapping) for path in batch.paths],
        "attempt": [1] * whole,
        "status": ["valid"] * whole,
        "started_at": [raw_logs.iso(first) for first in batch.first_s.tolist()],
        "duration_s": columns.seconds.tolist(),
        "energy_j": columns.energy_j.tolist(),
        "energy_scope": [raw_logs.scope_of(names) for names in scopes],
        "energy_source": ["measured"] * whole,
        "package_j": columns.part_j("package"),
        "dram_j": columns.part_j("dram"),
        "gpu_j": columns.part_j("gpu"),
        "samples": batch.rows.tolist(),
        "wraps": columns.wraps.tolist(),
        "energy_uncertainty_j": columns.doubt_j(),
        "raw": batch.paths,
    }
    trials = Trials(
        rows=rows,
        interval_s=batch.interval_s.tolist(),
        aligned_j=[None] * whole,
        naive_j=columns.naive_j(),
        constant=list(_names(batch.still)),
        unknown=[batch.unknown] * whole,
        derived=[False] * whole,
        first={pattern: _first(batch, pattern) for pattern in STATES},
        domains=_domains(columns),
    )
    alike: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    keys = list(zip(mine, *(sign.tolist() for sign in columns.signs()), strict=True))
    for place, i in enumerate(sound):
        alike[keys[i]].append(place)
    logs: list[Place] = [(batch, i) for i in sound]
    tally = Tally()
    for places in alike.values():
        tally.add(
            places,
            lambda p: _record(name, mapping, *mine[sound[p]], logs[p]),
            {"counter-wrap": lambda p: columns.wraps_of(sound[p])},
        )
    if len(sound) < whole:
        trials = Trials.joined([trials], sound)
    return Part(trials, tally, logs)


def _told(values: FloatArray) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.tolist()]


def _names(has: Mapping[str, BoolArray]) -> Iterator[tuple[str, ...]]:
    """The names that each log has; equal ones are one object."""
    known: dict[tuple[bool, ...], tuple[str, ...]] = {}
    for row in zip(*(mine.tolist() for mine in has.values()), strict=True):
        if row not in known:
            known[row] = tuple(itertools.compress(has, row))
        yield known[row]


def _first(batch: Batch, pattern: str) -> list[float | None]:
    """First readings of the gauge of that name."""
    names = limits.matching(pattern, tuple(batch.courses))
    return batch.courses[names[0]]["first"].tolist() if names else [None] * len(batch)


def _domains(columns: _Columns) -> dict[DomainKey, list[float | None]]:
    """Joules of each domain, as :class:`Trials` keeps them."""
    return {
        (energy.name, is_counted, 0): _told(np.where(counted == is_counted, energy.joules, np.nan))
        for energy, counted in zip(columns.batch.energies, columns.counted, strict=True)
        for is_counted in (True, False)
        if (counted == is_counted).any()
    }


# ------------------------------------------------------------------------------------- together


def _together(parts: Sequence[Part], order: Sequence[int]) -> Part:
    """Parts as one.

    Args:
        parts: one after the other.
        order: the place among all of these of each trial of the whole.
    """
    places = [0] * len(order)
    for place, i in enumerate(order):
        places[i] = place
    begins = itertools.accumulate((len(part.logs) for part in parts), initial=0)
    logs = [log for part in parts for log in part.logs]
    return Part(
        Trials.joined([part.trials for part in parts], order),
        Tally.joined(
            (part.tally, places[begin : begin + len(part.logs)])
            for part, begin in zip(parts, begins, strict=False)
        ),
        [logs[i] for i in order],
    )


def _in_order(parts: Sequence[Part], groups: Sequence[tuple[str, str]]) -> list[int]:
    """Places of all trials by image and kind, then by time."""
    rank = {group: place for place, group in enumerate(groups)}
    keys = []
    for part in parts:
        rows = part.trials.rows
        firsts = (
            logs.first_s[i] if isinstance(logs, Batch) else logs[i].first_s for logs, i in part.logs
        )
        keys += [
            (rank[image, kind], first is None, first or 0.0, path)
            for image, kind, first, path in zip(
                rows["image"], rows["kind"], firsts, rows["raw"], strict=True
            )
        ]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _reasons(parts: Sequence[Part]) -> dict[str, str]:
    """Logs far shorter than those of their image: path → what is said."""
    rows = [part.trials.rows for part in parts]
    told = [
        one
        for r in rows
        for one in zip(r["image"], r["kind"], r["duration_s"], r["status"], r["raw"], strict=True)
    ]
    usual = raw_logs.usual_durations(((image, kind), seconds) for image, kind, seconds, *_ in told)
    return {
        path: reason
        for image, kind, seconds, status, path in told
        if status == "valid" and (reason := raw_logs.ended_early(seconds, usual.get((image, kind))))
    }


def _ended_early(parts: Sequence[Part]) -> list[int]:
    """Parts that hold such a log."""
    short = _reasons(parts)
    return [
        i for i, part in enumerate(parts) if not short.keys().isdisjoint(part.trials.rows["raw"])
    ]
