"""One audit from folder to folder: discover, import, check, tabulate, write.

Statistics and figures are seconds of imports: they are made where they are needed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wattbench.analysis import checks
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.discover import Found, discover, run_folders, shown
from wattbench.analysis.audit.importers import experiment_runner, raw_logs
from wattbench.analysis.audit.mapping import Mapping
from wattbench.analysis.audit.result import Audit
from wattbench.analysis.meters import energibridge
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.finding_codes import Severity, Verdict
from wattbench.analysis.model.findings import Finding, dump, finding
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import write_rows


def audit(
    root: Path,
    mapping: Mapping,
    *,
    reference: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    limit: int = energibridge.SIZE_LIMIT,
    exclude: Path | None = None,
) -> Audit:
    """Audit a campaign.

    Args:
        root: its folder.
        mapping: what its files can't tell.
        reference: the image the others are compared with; over the mapping's.
        progress: is told in words how far it is.
        limit: bytes of a raw file beyond which it is named and not read.
        exclude: a folder inside that is none of the campaign, such as that of the results.

    Raises:
        InputError: there is nothing to audit.
    """
    if root.is_dir() and (folders := run_folders(root)):
        campaign, attempts, trials, findings = _own(root, folders, mapping)
    else:
        campaign = _import(root, mapping, progress, limit, exclude)
        progress("checks")
        facts = checks.Facts(
            imported=True, expected_trials=mapping.expected_trials, with_statistics=True
        )
        trials, whole = checks.judge(campaign.records, facts)
        attempts = trials
        findings = [*campaign.findings, *whole, *(f for r in trials for f in r.findings)]
    from wattbench.analysis.audit import claims, published_tables, verdicts
    from wattbench.analysis.audit import tables as bases

    progress("tables")
    sizes = dict(campaign.sizes_gb) | mapping.sizes_gb
    chosen = reference or mapping.reference or campaign.reference
    tables = bases.build(campaign, trials, chosen, sizes)
    findings += claims.check(campaign, trials, tables)
    findings += published_tables.compare(mapping.printed, tables.tables)
    progress("verdicts")
    modelled = any(r.row.energy_source == "modelled" for r in trials)
    told = verdicts.answers(tables.trials, chosen, modelled=modelled)
    tables = replace(tables, tables={**tables.tables, "verdicts": verdicts.table(told)})
    return Audit(campaign, attempts, trials, tuple(_settled(findings)), tables, tuple(told))


def _own(
    root: Path, folders: Sequence[Path], mapping: Mapping
) -> tuple[Campaign, tuple[Record, ...], tuple[Record, ...], list[Finding]]:
    """Wattbench's own runs, several of one folder as one campaign."""
    from wattbench.analysis.audit.importers import wattbench_run

    done = [wattbench_run.read(folder) for folder in folders]
    sizes: dict[str, float] = {}
    for one in done:
        sizes |= one.campaign.sizes_gb
    records = tuple(r for one in done for r in one.records)
    campaign = done[0].campaign
    if len(done) > 1:
        campaign = replace(
            campaign,
            name=mapping.name or shown(root.resolve().name),
            records=records,
            sizes_gb=sizes,
        )
    trials = tuple(r for one in done for r in one.trials)
    return campaign, records, trials, [f for one in done for f in one.findings]


def _import(
    root: Path,
    mapping: Mapping,
    progress: Callable[[str], None],
    limit: int,
    exclude: Path | None,
) -> Campaign:
    found = discover(root, mapping, exclude, lambda files: progress(f"{files} files found"))
    if found.empty:
        first = next(iter(found.unread.items()), None)
        seen = (
            f"; {len(found.unread)} files are none, such as {first[0]} ({first[1]})"
            if first
            else ""
        )
        raise InputError(
            f"{root}: no EnergiBridge CSV, log, summary table or run to audit{seen}; "
            "name a campaign's folder or tell its layout with --mapping"
        )
    name = mapping.name or shown(root.resolve().name)
    importer = experiment_runner.read if found.run_tables else raw_logs.read
    campaign = importer(root, name, found, mapping, progress, limit)
    return replace(campaign, findings=(*_unread(found), *campaign.findings))


def _unread(found: Found) -> list[Finding]:
    """Files that are not used: those that were never meant to be in one row, the others one by one."""
    plain = sorted(
        p
        for p, why in found.unread.items()
        if why in ("not a CSV and not a text log", "a hidden file")
    )
    rows = [
        finding("file-unread", Verdict.FOUND, "campaign", f"{path}: {why}", file=path, line=1)
        for path, why in sorted(found.unread.items())
        if path not in set(plain)
    ]
    if plain:
        rows.append(
            finding(
                "file-unread",
                Verdict.FOUND,
                "campaign",
                f"{len(plain)} files of other kinds are not used, such as {plain[0]}"
                if len(plain) > 1
                else f"{plain[0]}: of another kind, not used",
                severity=Severity.INFO,
                files=plain[:1000],
            )
        )
    return rows


def _settled(findings: Iterable[Finding]) -> list[Finding]:
    """Without "not found" rows of codes that somebody else found."""
    findings = list(findings)
    found = {f.code for f in findings if f.verdict is Verdict.FOUND}
    return [f for f in findings if f.verdict is not Verdict.NOT_FOUND or f.code not in found]


def write(result: Audit, out: Path) -> None:
    """Write tables, findings, figures and the page.

    Raises:
        InputError: the folder can't be written.
    """
    from wattbench.analysis.audit import page

    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        for name, records in (("trials", result.trials), ("attempts", result.attempts)):
            write_rows((r.row for r in records), out / f"{name}.csv")
        (out / "findings.json").write_text(dump(result.findings), encoding="utf-8")
        for name, table in result.tables.tables.items():
            write_frame(table, out / "tables" / f"{name}.csv")
        (out / "summary.json").write_text(
            json.dumps(summary(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        page.write(result, summary(result), out)
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); name another folder with --out"
        ) from error


def summary(result: Audit) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    rows = [r.row for r in result.trials]
    found = [f for f in result.findings if f.verdict is Verdict.FOUND]
    return {
        "schema": 1,
        "campaign": result.campaign.name,
        "layout": result.campaign.layout,
        "trials": len(rows),
        "status": dict(sorted(Counter(r.status for r in rows).items())),
        "images": sorted({r.image for r in rows} or {d.image for d in result.campaign.derived}),
        "energy_source": sorted({r.energy_source for r in rows if r.energy_source}),
        "derived_rows": len(result.campaign.derived),
        "wraps": sum(r.wraps or 0 for r in rows),
        "findings": {
            "found": {str(s): sum(f.severity is s for f in found) for s in Severity},
            "undecidable": sum(f.verdict is Verdict.UNDECIDABLE for f in result.findings),
            "codes": sorted({f.code for f in found}),
        },
        "answers": {a.basis: a.sentence for a in result.answers},
        "bases": {
            r["basis"]: {k: v for k, v in r.items() if k != "basis"}
            for r in result.tables.tables["bases"].to_dict("records")
        },
    }
