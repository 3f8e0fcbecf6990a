"""One audit from folder to folder: discover, import, check, tabulate, write.

Statistics and figures are seconds of imports: they are made where they are needed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wattbench.analysis import checks
from wattbench.analysis.audit import believed, plausibility
from wattbench.analysis.audit.actions import for_imports
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.discover import HIDDEN, OTHER_KIND, discover, shown
from wattbench.analysis.audit.importers import Context, Files, Importer, choose, installed
from wattbench.analysis.audit.mapping import Mapping
from wattbench.analysis.audit.result import Audit
from wattbench.analysis.audit.scopes import restated, scope_of
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
    layout: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    limit: int = energibridge.SIZE_LIMIT,
    exclude: Path | None = None,
) -> Audit:
    """Audit a campaign.

    Args:
        root: its folder.
        mapping: facts that its files do not hold.
        reference: the image the others are compared with; over the mapping's.
        layout: of the importer that reads it; None: the first that has files of its own.
        progress: called with one line of progress.
        limit: bytes of a raw file beyond which it is named and not read.
        exclude: a folder inside that is none of the campaign, such as that of the results.

    Raises:
        InputError: there is nothing to audit.
    """
    campaign = _import(root, mapping, layout, progress, limit, exclude)
    if campaign.judged is not None:
        attempts, trials = campaign.records, campaign.judged.trials
        findings = [*campaign.findings, *campaign.judged.findings]
    else:
        progress("checks")
        facts = checks.Facts(
            imported=True, expected_trials=mapping.expected_trials, with_statistics=True
        )
        trials, whole = checks.judge(campaign.records, facts)
        attempts = trials
        findings = [*campaign.findings, *whole, *(f for r in trials for f in r.findings)]
    from wattbench.analysis.audit import claims, confounding, published_tables, verdicts
    from wattbench.analysis.audit import tables as bases

    progress("tables")
    sizes = dict(campaign.sizes_gb) | mapping.sizes_gb
    chosen = reference or mapping.reference or campaign.reference
    wrong = plausibility.Misread()
    if campaign.judged is None:
        wrong = plausibility.misread(trials)
        trials = plausibility.without(trials, wrong)
    findings += wrong.findings
    scope = scope_of(campaign, trials)
    tables = bases.build(campaign, trials, scope, chosen, sizes)
    findings += claims.check(campaign, trials, scope, tables)
    if campaign.judged is None:
        findings += confounding.check(campaign, trials)
        findings += claims.versions(mapping.versions, trials)
        findings = for_imports(findings)
        attempts = trials = tuple(restated(r, scope) for r in trials)
    findings += published_tables.compare(mapping.printed, tables.tables, campaign.key)
    progress("verdicts")
    modelled = any(r.row.energy_source == "modelled" for r in trials)
    answers = verdicts.answers(
        tables.trials,
        chosen,
        modelled=modelled,
        covered=bases.covered(campaign, scope),
        misread=wrong.reason,
        apart=scope.apart,
        key=campaign.key,
    )
    if campaign.judged is None:
        answers = [a.worded(believed.in_their_words) for a in answers]
    tables = replace(tables, tables={**tables.tables, "verdicts": verdicts.table(answers)})
    return Audit(campaign, attempts, trials, tuple(_settled(findings)), tables, tuple(answers))


def _import(
    root: Path,
    mapping: Mapping,
    layout: str | None,
    progress: Callable[[str], None],
    limit: int,
    exclude: Path | None,
) -> Campaign:
    known = installed()
    if layout is not None and layout not in {i.layout for i in known}:
        names = ", ".join(i.layout for i in known)
        raise InputError(f"no layout {layout!r}; name one of {names}, or leave --layout out")
    files = discover(root, known, mapping, exclude, lambda n: progress(f"{n} files found"))
    importer = choose([i for i in known if layout in (None, i.layout)], files)
    if importer is None:
        raise InputError(_nothing_to_audit(root, files, known, layout))
    context = Context(mapping.name or shown(root.resolve().name), mapping, progress, limit)
    campaign = importer.read(files, context)
    if campaign.judged is None and not campaign.records and not campaign.derived:
        why = next((f": {f.message}" for f in campaign.findings), "")
        raise InputError(
            f"{root}: its {importer.layout} files hold no run and no row that can be used{why}; "
            "describe them with --mapping, or name another folder"
        )
    others = [
        finding(
            "file-unread",
            Verdict.FOUND,
            "campaign",
            f"{len(files.of(role))} files of layout {i.layout!r}, such as {files.of(role)[0]}, are not read "
            f"together with {importer.layout!r}; audit them with --layout {i.layout}",
            severity=Severity.WARNING,
            file=files.of(role)[0],
            line=1,
        )
        for i in known
        if i is not importer and i.layout not in campaign.read_with
        for role in sorted(i.leads - importer.leads)
        if files.of(role)
    ]
    key, said = _key(campaign, mapping)
    return replace(
        campaign,
        key=key,
        inferred=(*campaign.inferred, *said),
        findings=(*_unread(files), *others, *campaign.findings),
    )


def _key(campaign: Campaign, mapping: Mapping) -> tuple[Callable[[str], str], tuple[str, ...]]:
    """How names of images are joined: by their suffixes, unless two treatments differ in these only."""
    names = sorted({r.row.image for r in campaign.records if r.row.kind == "workload"})
    if len({mapping.key(name) for name in names}) == len(names):
        return mapping.key, ()
    same = [n for n in names if sum(mapping.key(n) == mapping.key(other) for other in names) > 1]
    return str, (
        f"{', '.join(same[:8])} differ in a suffix only and are treatments of their own; "
        "`images: {…}` in a --mapping file joins them",
    )


def _nothing_to_audit(
    root: Path, files: Files, known: Sequence[Importer], layout: str | None
) -> str:
    if layout is not None and (other := choose(known, files)) is not None:
        return f"{root}: no files of layout {layout!r}, but of {other.layout!r}; leave --layout out"
    first = next(iter(files.unread.items()), None)
    seen = f"; {len(files.unread)} files are none, such as {first[0]} ({first[1]})" if first else ""
    return (
        f"{root}: no EnergiBridge CSV, log, summary table or run to audit{seen}; "
        "name a campaign's folder, or describe its layout with --mapping"
    )


def _unread(files: Files) -> list[Finding]:
    """Files that are not used: those that were never meant to be in one row, the others one by one."""
    plain = sorted(p for p, why in files.unread.items() if why in (OTHER_KIND, HIDDEN))
    rows = [
        finding("file-unread", Verdict.FOUND, "campaign", f"{path}: {why}", file=path, line=1)
        for path, why in sorted(files.unread.items())
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
    """Findings without "not found" rows of codes that another check found."""
    findings = list(findings)
    found = {f.code for f in findings if f.verdict is Verdict.FOUND}
    return [f for f in findings if f.verdict is not Verdict.NOT_FOUND or f.code not in found]


def write(result: Audit, out: Path) -> dict[str, Any]:
    """Write tables, findings, figures and the page; returns what ``summary.json`` holds.

    Raises:
        InputError: the folder can't be written.
    """
    from wattbench.analysis.audit import page

    facts = summary(result)
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        write_rows((r.row for r in result.trials), out / "trials.csv")
        if result.attempts is result.trials:
            shutil.copyfile(out / "trials.csv", out / "attempts.csv")
        else:
            write_rows((r.row for r in result.attempts), out / "attempts.csv")
        (out / "findings.json").write_text(dump(result.findings), encoding="utf-8")
        for name, table in result.tables.tables.items():
            write_frame(table, out / "tables" / f"{name}.csv")
        (out / "summary.json").write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        page.write(result, facts, out)
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); name another folder with --out"
        ) from error
    return facts


def _status(record: Record) -> str:
    """A trial's status; a published row without raw data is not a missing trial."""
    return "published" if record.log.get("derived") else record.row.status


def summary(result: Audit) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    rows = [r.row for r in result.trials]
    found = [f for f in result.findings if f.verdict is Verdict.FOUND]
    return {
        "schema": 1,
        "campaign": result.campaign.name,
        "layout": result.campaign.layout,
        "inferred": list(result.campaign.inferred),
        "believed": believed.sentence(result),
        "trials": len(rows),
        "status": dict(sorted(Counter(map(_status, result.trials)).items())),
        # ``images`` is the contract's key; for a reader of an import they are treatments.
        "images": list(result.treatments),
        "treatments": list(result.treatments),
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
