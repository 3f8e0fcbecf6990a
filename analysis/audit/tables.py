"""The tables of an audit: the same statistics of the published, the imported and the repaired numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wattbench.analysis.audit.campaign import Campaign, DerivedRow
from wattbench.analysis.audit.scopes import WHOLE_SHARE, Scope
from wattbench.analysis.checks.selections import grouped
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.records import Record
from wattbench.analysis.stats.paper_tables import COLUMNS, describe

#: Numbers as published, those of published rows without a fault of their own where raw files are there
#: too, as imported, and repaired.
BASES = ("published", "published-repaired", "imported", "repaired")

#: Pairs of treatments that are tabulated: their number grows with the square.
MOST_PAIRS = 1000

#: People subtract medians as printed.
PRINTED_DIGITS = 2

PUBLISHED_RULE = (
    "every row of the published tables, as it stands there; differences of medians are taken after "
    "rounding to two digits"
)


PUBLISHED_REPAIRED_RULE = (
    "every published row but those with a fault of their own: untraceable, impossible, or made from a run "
    "with an error"
)


@dataclass(frozen=True)
class Tables:
    """All tables of an audit.

    Attributes:
        tables: name → frame; the first column is ``basis``.
        trials: basis → tidy frame (``image``, ``kind``, ``energy_j``, ``duration_s``, ``subject``).
    """

    tables: Mapping[str, pd.DataFrame]
    trials: Mapping[str, pd.DataFrame]


_TIDY = ["host", "image", "kind", "energy_j", "duration_s", "subject"]


def build(
    campaign: Campaign,
    trials: Sequence[Record],
    scope: Scope,
    reference: str | None,
    sizes_gb: Mapping[str, float],
) -> Tables:
    """All tables.

    Args:
        campaign: as imported.
        trials: its trials, judged.
        scope: what the repaired numbers cover.
        reference: the image the others are compared with, with or without suffix; None: the one of
            lowest median.
        sizes_gb: sizes by image, with or without suffix.

    Raises:
        InputError: no basis has the reference image.
    """
    sound = _published(sound_rows(campaign, trials))
    measured = any(r.row.status in ("valid", "invalid") for r in trials)
    frames = {
        "published": _published(campaign.derived),
        "published-repaired": sound if measured else _published(()),
        "imported": _imported(campaign, trials),
        "repaired": _tidy((r, scope.joules_of(r)) for r in trials if r.row.status == "valid")
        if measured
        else sound,
    }
    known = sorted(
        {
            str(i)
            for frame in frames.values()
            for i in frame.loc[frame["kind"] == "workload", "image"].unique()
        }
    )
    if (
        reference is not None
        and known
        and campaign.key(reference) not in {campaign.key(i) for i in known}
    ):
        raise InputError(
            f"reference {reference!r} is not among the images; name one of {', '.join(known)}"
        )
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in (*COLUMNS, "undefined")}
    for basis, frame in frames.items():
        if frame.empty:
            continue
        hosts = sorted(frame["host"].unique())
        for host in hosts:
            # Absolute joules of different hosts are never pooled: each has rows of its own.
            mine = frame[frame["host"] == host]
            result = describe(
                mine,
                basis,
                reference=_as_named(reference, mine, campaign.key),
                sizes_gb=_sizes(sizes_gb, mine, campaign.key),
                most_pairs=MOST_PAIRS,
                printed_digits=PRINTED_DIGITS if basis.startswith("published") else None,
            )
            for name, table in (*result.tables.items(), ("undefined", result.undefined)):
                parts[name].append(_of_host(table, host) if len(hosts) > 1 else table)
    tables = {name: _join(name, tables) for name, tables in parts.items()}
    tables["bases"] = _rules(campaign, scope, frames)
    tables["domains"] = _domains(trials)
    tables["repairs"] = _repairs(frames, trials)
    return Tables(tables, frames)


def _frame(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(_TIDY)
    # Plain objects: strings of pandas' own would be made and taken apart again for every trial.
    types = {"energy_j": "float64", "duration_s": "float64"}
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=types.get(name, "object"))
            for name, values in zip(_TIDY, columns, strict=True)
        }
    )


def _tidy(pairs: Iterable[tuple[Record, float | None]]) -> pd.DataFrame:
    """Trials with the joules of a basis, None: not in it."""
    return _frame(
        (r.row.host, r.row.image, r.row.kind, joules, r.row.duration_s, r.subject)
        for r, joules in pairs
        if joules is not None
    )


def _imported(campaign: Campaign, trials: Sequence[Record]) -> pd.DataFrame:
    return _frame(
        (r.row.host, r.row.image, r.row.kind, *campaign.summaries[r.subject], r.subject)
        for r in trials
        if r.subject in campaign.summaries
    )


def _published(rows: Iterable[DerivedRow]) -> pd.DataFrame:
    return _frame(
        ("", d.image, d.kind, d.energy_j, d.duration_s, f"{d.file}:{d.line}") for d in rows
    )


def sound_rows(campaign: Campaign, trials: Sequence[Record]) -> list[DerivedRow]:
    """Published rows without a fault of their own: a source of their own that has no fault itself."""
    faulty = {
        (f.evidence.get("file"), f.evidence.get("line"))
        for f in campaign.findings
        if f.code == "row-untraceable" and f.is_found_error
    }
    bad: set[tuple[str | None, int | None]] = set()
    groups = grouped(trials, lambda r: (r.row.image, r.row.kind)).values()
    for r in (r for group in groups for r in _with_own_fault(group)):
        bad.add((r.row.raw, None))
        bad.add((r.log.get("file"), r.log.get("summary_line") or -1))
    return [
        d
        for d in campaign.derived
        if (d.file, d.line) not in faulty and campaign.support.get((d.file, d.line)) not in bad
    ]


def _with_own_fault(trials: Sequence[Record]) -> Iterator[Record]:
    """Trials of a treatment with an error that most of the others don't have.

    A start without a raw file is not a fault of a row made from its summary line.
    """
    errors = {
        id(r): {f.code for f in r.findings if f.is_found_error} - {"trial-missing"} for r in trials
    }
    counts = Counter(code for codes in errors.values() for code in codes)
    common = {code for code, n in counts.items() if 2 * n > len(trials) > 2}
    for r in trials:
        if r.row.status == "failed" or errors[id(r)] - common:
            yield r


def covered(campaign: Campaign, scope: Scope) -> dict[str, float]:
    """Basis → share of the metered joules that its numbers cover, where this is less than all."""
    if not campaign.package_only or scope.package_share >= WHOLE_SHARE:
        return {}
    only = ["published", "published-repaired", "imported"]
    return dict.fromkeys([*only, "repaired"] if scope.is_package else only, scope.package_share)


def _of_host(table: pd.DataFrame, host: str) -> pd.DataFrame:
    """A table of one of several hosts, with the host in its labels."""
    labels = [
        c for c in ("image", "image_a", "image_b", "reference", "test", "subject") if c in table
    ]
    return table.assign(**{c: table[c].astype(str) + f" @ {host}" for c in labels})


def _as_named(reference: str | None, frame: pd.DataFrame, key: Callable[[str], str]) -> str | None:
    """The reference as this basis writes it."""
    if reference is None:
        return None
    names = frame.loc[frame["kind"] == "workload", "image"].unique()
    return next((str(n) for n in names if key(str(n)) == key(reference)), reference)


def _sizes(
    sizes_gb: Mapping[str, float], frame: pd.DataFrame, key: Callable[[str], str]
) -> dict[str, float]:
    by_key = {key(image): size for image, size in sizes_gb.items()}
    return {str(n): by_key[key(str(n))] for n in frame["image"].unique() if key(str(n)) in by_key}


def _join(name: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [f for f in frames if not f.empty]
    if not filled:
        columns = COLUMNS.get(name, ("table", "subject", "reason"))
        return pd.DataFrame(columns=["basis", *columns])
    # Cells may be empty in one basis and numbers in another.
    return pd.concat([f.astype(object) for f in filled], ignore_index=True)


def _rules(campaign: Campaign, scope: Scope, trials: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rules = {
        "published": PUBLISHED_RULE,
        "published-repaired": PUBLISHED_REPAIRED_RULE,
        "imported": campaign.imported_rule,
        "repaired": campaign.repaired_rule
        + (f"; joules of {'+'.join(scope.parts)}" if scope.parts else ""),
    }
    return pd.DataFrame(
        [
            (
                basis,
                int((f["kind"] == "workload").sum()),
                int((f["kind"] == "idle").sum()),
                rules[basis],
            )
            for basis, f in trials.items()
            if not f.empty
        ],
        columns=["basis", "n_workload", "n_idle", "counts"],
    )


def _domains(trials: Sequence[Record]) -> pd.DataFrame:
    """Joules and watts of each domain of the valid trials."""
    frame = pd.DataFrame(
        [
            (r.row.image, r.row.kind, d.name, d.counted, d.energy_j, d.energy_j / r.row.duration_s)
            for r in trials
            if r.row.status == "valid" and r.row.duration_s
            for d in r.domains
        ],
        columns=["image", "kind", "domain", "counted", "energy_j", "power_w"],
    )
    table = (
        frame.groupby(["image", "kind", "domain", "counted"], sort=True)
        .agg(n=("energy_j", "size"), mean_j=("energy_j", "mean"), mean_w=("power_w", "mean"))
        .reset_index()
    )
    table.insert(0, "basis", "repaired")
    return table


def _repairs(frames: Mapping[str, pd.DataFrame], trials: Sequence[Record]) -> pd.DataFrame:
    """What the repairs did to each treatment's number of trials."""
    imported = set(frames["imported"]["subject"])
    repaired = set(frames["repaired"]["subject"])
    rows = []
    groups = grouped(trials, lambda r: (r.row.image, r.row.kind))
    for (image, kind), mine in sorted(groups.items()):
        names = {r.subject: r for r in mine}
        recovered = [r for s, r in names.items() if s in repaired and s not in imported]
        rows.append(
            (
                "repaired", image, kind, len(mine),
                sum(s in imported for s in names), sum(s in repaired for s in names),
                len(recovered), sum(bool(r.row.wraps) for r in recovered),
                sum(s in imported and s not in repaired for s in names),
                sum(r.row.status == "failed" for r in mine),
                sum(r.row.status == "missing" for r in mine),
            )
        )  # fmt: skip
    columns = [
        "basis", "image", "kind", "starts", "n_imported", "n_repaired", "recovered", "recovered_from_wraps",
        "taken_out", "failed", "missing",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
