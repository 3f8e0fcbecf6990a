"""Runs compared: the one entry, from places to a :class:`Comparison`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.presentation import formatting
from wattbench.analysis.stats.endpoints import reference_of
from wattbench.analysis.stats.results import Conclusion
from wattbench.analysis.stats.results import Settings as RunSettings
from wattbench.analysis.stats.verdicts import to_pct
from wattbench.analysis.storage import locations
from wattbench.analysis.storage.locations import Place
from wattbench.analysis.trends import fact_changes as facts
from wattbench.analysis.trends import levels, read, series, side_by_side
from wattbench.analysis.trends.fact_changes import FactChange
from wattbench.analysis.trends.findings import Watch, regression, states
from wattbench.analysis.trends.levels import Baseline
from wattbench.analysis.trends.read import StoredRun
from wattbench.analysis.trends.series import HostNights
from wattbench.analysis.trends.side_by_side import Difference

#: Number of runs from which on they are a series of nights; fewer are compared side by side.
NIGHTS = 6

#: Names of all tables, of both modes.
TABLES = (
    "runs", "changed_facts", "levels", "changes", "control", "effects", "differences",
    "verdict_changes",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Attributes:
        reference: image to compare with; None takes the runs' own.
        regression_pct: rise in energy that is an alert, %; also the margin of equivalence.
        quarantine_pct: limit of the control workload's SD, %.
    """

    reference: str | None = None
    regression_pct: float = 1.0
    quarantine_pct: float = 1.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that comparing gave.

    Attributes:
        runs: in the order compared: by time where they are nights, else as named.
        options: as asked for.
        reference: the reference image.
        baselines: of the hosts.
        levels: one row an image, host and run.
        facts: what changed between runs.
        hosts: the nights by host; empty for few runs.
        conclusions: one a run; empty for nights.
        differences: of few runs, each later one against the first.
        findings: everything found, not found, or undecidable.
        notes: sentences that belong on the first screen.
    """

    runs: tuple[StoredRun, ...]
    options: Options
    reference: str | None
    baselines: tuple[Baseline, ...]
    levels: pd.DataFrame
    facts: tuple[FactChange, ...]
    trials: int
    valid: int
    hosts: tuple[HostNights, ...] = ()
    conclusions: tuple[Conclusion, ...] = ()
    differences: tuple[Difference, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def is_nights(self) -> bool:
        """Whether the runs are a series of nights."""
        return is_series(self.runs)

    @property
    def has_errors(self) -> bool:
        """Whether a found finding is an error."""
        return any(f.is_found_error for f in self.findings)

    @property
    def images(self) -> tuple[str, ...]:
        """Workload images, the reference first."""
        names = {str(i) for i in self.levels.loc[self.levels["kind"] == "workload", "image"]}
        return tuple(sorted(names, key=lambda i: (i != self.reference, i)))

    @property
    def host_names(self) -> tuple[str, ...]:
        """Hosts with a valid trial."""
        return tuple(b.host for b in self.baselines)

    @property
    def energy_source(self) -> str | None:
        """``measured``, ``modelled``, ``mixed`` or None."""
        sources = {b.energy_source for b in self.baselines if b.energy_source}
        return None if not sources else sources.pop() if len(sources) == 1 else "mixed"

    def tables(self) -> dict[str, pd.DataFrame]:
        """The machine-readable tables by name."""
        tables = {
            "runs": _runs_table(self),
            "changed_facts": facts.to_frame(self.facts, self.runs),
        }
        if self.is_nights:
            tables["levels"] = _levels_table(self)
            tables["changes"] = _changes_table(self)
            tables["control"] = _control_table(self)
        else:
            effects = side_by_side.effects(self.runs, self.conclusions)
            tables["effects"] = effects
            tables["differences"] = side_by_side.to_frame(self.differences, self.runs)
            tables["verdict_changes"] = side_by_side.verdict_changes(effects)
        return tables


def compare(where: Sequence[str], options: Options, progress: Callable[[str], None]) -> Comparison:
    """Compare runs.

    Args:
        where: folders, ``s3://`` prefixes, folders of runs or patterns.
        options: as asked for.
        progress: called with one line of progress.

    Raises:
        InputError: a place holds no run, no trial is valid, or the runs share no image.
    """
    return compare_places(locations.find(where), options, progress)


def compare_places(
    found: Sequence[Place], options: Options, progress: Callable[[str], None]
) -> Comparison:
    """Compare runs whose places are known already; the rest as :func:`compare`."""
    stored, unread = read.read(found, progress)
    is_nights = is_series(stored)
    if is_nights:
        stored = tuple(sorted(stored, key=_order))
    everything = read.together(stored)
    reference, notes = _reference(stored, everything, options.reference)
    progress("levels")
    trials, baselines = levels.prepare(everything, reference)
    if trials.empty:
        raise InputError(
            f"{stored[0].place}{' and the others' if len(stored) > 1 else ''}: no valid trial with "
            "energy; let the runs finish, or name others"
        )
    _share_an_image(stored, trials)
    by_run = levels.of_runs(trials, baselines)
    changed = facts.changes(stored, by_run)
    watch = Watch(stored, changed, options.regression_pct)
    result = Comparison(
        runs=stored,
        options=options,
        reference=reference,
        baselines=tuple(baselines),
        levels=by_run,
        facts=changed,
        trials=len(everything),
        valid=int((everything["status"] == "valid").sum()),
    )
    settings = RunSettings(reference=reference, equivalence_pct=options.regression_pct)
    if is_nights:
        progress("changes of level")
        hosts = series.by_host(by_run, baselines, options.quarantine_pct)
        named = [f for h in hosts for f in watch.of_host(h)]
        more: dict[str, object] = {"hosts": hosts}
    else:
        concluded = side_by_side.conclusions(stored, settings, progress)
        different = side_by_side.differences(trials, baselines, len(stored), reference, settings)
        named = [*watch.of_differences(different), *states(baselines)]
        notes += _few_notes(stored, different)
        more = {"conclusions": concluded, "differences": different}
    empty = sorted(set(range(len(stored))) - set(trials["run"].unique()))
    if empty:
        names = formatting.listed([stored[i].run_id for i in empty])
        notes.append(f"Without any valid trial: {names}.")
    findings = (*named, *watch.of_facts(), *unread)
    return _with(result, findings=findings, notes=tuple(notes), **more)


def is_series(runs: Sequence[StoredRun]) -> bool:
    """Whether runs are a series of nights: several on one day are experiments side by side."""
    return len({run.night for run in runs}) >= NIGHTS


def _with(result: Comparison, **changes: Any) -> Comparison:
    return Comparison(**(vars(result) | changes))


def _order(run: StoredRun) -> tuple[bool, datetime, str]:
    return run.when is None, run.when or datetime.max.replace(tzinfo=UTC), run.run_id


def _reference(
    runs: Sequence[StoredRun], trials: pd.DataFrame, wanted: str | None
) -> tuple[str | None, list[str]]:
    """The reference image: asked for, else the runs' own, else the one of lowest median."""
    workload = trials[trials["kind"] == "workload"]
    there = {str(i) for i in workload["image"].dropna().unique()}
    if wanted is not None:
        if wanted not in there:
            raise InputError(
                f"--reference {wanted}: no run has that image; there are {', '.join(sorted(there))}"
            )
        return wanted, []
    named = Counter(
        name for r in runs if (name := r.facts.get("reference")) is not None and name in there
    ).most_common()
    notes = []
    if len(named) > 1:
        others = ", ".join(name for name, _ in named[1:])
        notes.append(
            f"the runs name different reference images; compared with {named[0][0]} (not {others})"
        )
    if named:
        return named[0][0], notes
    return reference_of(trials, None)[0], notes


def _share_an_image(runs: Sequence[StoredRun], trials: pd.DataFrame) -> None:
    if len(runs) < 2:
        return
    workload = trials[trials["kind"] == "workload"]
    spread = workload.groupby("image", observed=True)["run"].nunique()
    if len(spread) and int(spread.max()) >= 2:
        return
    per_run = workload.groupby("run", observed=True)["image"].unique()
    images_of = "; ".join(
        f"{runs[int(str(i))].run_id}: {', '.join(sorted(map(str, names)))}"
        for i, names in per_run.head(3).items()
    )
    raise InputError(
        f"the runs have no image in common ({images_of}); name runs of the same images"
    )


def _few_notes(runs: Sequence[StoredRun], found: Sequence[Difference]) -> list[str]:
    if len(runs) == 1:
        return ["One run only: there is nothing to compare it with; its hosts stand side by side."]
    if not found:
        return [
            "The runs share no host with a common image and baseline: their effects stand side by "
            "side, without a difference."
        ]
    unnamed = [
        "No host is named in the runs: nothing shows them to be of one machine, and a difference may "
        "be the machines'."
    ]
    return [
        *([] if all(d.host_before and d.host_after for d in found) else unnamed),
        "An interval of a difference covers the noise inside these runs. How much an unchanged host "
        f"scatters from run to run is seen from {NIGHTS} runs on.",
    ]


# Tables -----------------------------------------------------------------------------------------


def _runs_table(result: Comparison) -> pd.DataFrame:
    rows = []
    for run in result.runs:
        status = Counter(run.table["status"].to_pylist())
        hosts = {h for h in run.table["host"].unique().to_pylist() if h}
        rows.append(
            {
                "run_id": run.run_id, "when": run.when.isoformat() if run.when else None,
                "place": run.place, "hosts": len(hosts), "trials": run.table.num_rows,
                "valid": status["valid"], "reference": run.facts.get("reference"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _levels_table(result: Comparison) -> pd.DataFrame:
    table = result.levels.copy()
    table.insert(0, "run_id", [result.runs[r].run_id for r in table["run"]])
    table.insert(1, "night", [result.runs[r].night for r in table["run"]])
    return table.drop(columns="run")


def _changes_table(result: Comparison) -> pd.DataFrame:
    rows = []
    for host in result.hosts:
        own = [(host.own, "joules")] if host.own else []
        for track, of in [*((t, "ratio") for t in host.tracks), *own]:
            rise = regression(track, result.options.regression_pct) if of == "ratio" else None
            for c in track.course.changes:
                run = result.runs[track.runs[c.index]]
                rows.append(
                    {
                        "host": host.host, "image": track.image, "of": of,
                        "baseline": host.baseline.name if of == "ratio" else None,
                        "first_night": run.night, "run_id": run.run_id,
                        "earliest": result.runs[track.runs[c.earliest]].night,
                        "latest": result.runs[track.runs[c.latest]].night,
                        "change_pct": to_pct(c.shift), "lower_pct": to_pct(c.lower),
                        "upper_pct": to_pct(c.upper), "p_corrected": c.p,
                        "nights_before": c.before, "nights_after": c.after,
                        "confirmed": c.settled,
                        "regression": rise is not None and c is rise.change,
                        "digest_before": track.digests[c.index - 1],
                        "digest_after": track.digests[c.index],
                    }
                )  # fmt: skip
    columns = [
        "host", "image", "of", "baseline", "first_night", "run_id", "earliest", "latest",
        "change_pct", "lower_pct", "upper_pct", "p_corrected", "nights_before", "nights_after",
        "confirmed", "regression", "digest_before", "digest_after",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _control_table(result: Comparison) -> pd.DataFrame:
    rows = [
        {
            "host": h.host, "baseline": h.baseline.name, "scope": h.baseline.scope,
            "control_runs": h.quarantine.runs if h.quarantine else 0,
            "sd_pct": h.quarantine.sd_pct if h.quarantine else None,
            "bound_pct": h.quarantine.bound_pct if h.quarantine else None,
            "limit_pct": result.options.quarantine_pct,
            "quarantined": h.quarantine.quarantined if h.quarantine else None,
            "images": len(h.tracks), "left_out": sum(h.left_out.values()),
        }
        for h in result.hosts
    ]  # fmt: skip
    return pd.DataFrame(rows)
