"""A comparison as files: the page and its machine-readable twins."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.findings import dump
from wattbench.analysis.trends import headline, page, read
from wattbench.analysis.trends.compare import TABLES, Comparison


def write(result: Comparison, out: Path) -> None:
    """Write ``index.html``, ``summary.json``, ``trials.csv``, ``findings.json``, ``tables/*.csv``.

    Raises:
        OSError: the folder can't be written.
    """
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for name in TABLES:  # those of an earlier comparison of another mode
        (out / "tables" / f"{name}.csv").unlink(missing_ok=True)
    for name, table in result.tables().items():
        write_frame(table, out / "tables" / f"{name}.csv")
    read.write_csv(result.runs, str(out / "trials.csv"))
    (out / "findings.json").write_text(dump(result.findings), encoding="utf-8")
    text = json.dumps(summary(result), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(text + "\n", encoding="utf-8")
    (out / "index.html").write_text(page.render(result), encoding="utf-8")


def summary(result: Comparison) -> dict[str, Any]:
    """The answer for programs, JSON-ready."""
    found = Counter(str(f.severity) for f in result.findings if f.verdict is Verdict.FOUND)
    tables = result.tables()
    document = {
        "schema": 1,
        "headline": headline.sentence(result),
        "mode": "nights" if result.is_nights else "runs",
        "reference": result.reference,
        "energy_source": result.energy_source,
        "regression_pct": result.options.regression_pct,
        "quarantine_pct": result.options.quarantine_pct,
        "trials": result.trials,
        "valid": result.valid,
        "images": list(result.images),
        "hosts": [
            {
                "host": b.host, "baseline": b.name, "scope": b.scope,
                "energy_source": b.energy_source, "note": b.note, "reason": b.reason,
            }
            for b in result.baselines
        ],
        "findings": {
            "found": {s: found[s] for s in ("error", "warning", "info")},
            "undecidable": sum(f.verdict is Verdict.UNDECIDABLE for f in result.findings),
            "not_found": sum(f.verdict is Verdict.NOT_FOUND for f in result.findings),
        },
        "regressions": [
            dict(f.evidence)
            for f in result.findings
            if f.code == "regression" and f.verdict is Verdict.FOUND
        ],
        "notes": list(result.notes),
        "runs": tables["runs"].to_dict("records"),
        "changes": tables["changes"].to_dict("records") if "changes" in tables else [],
        "differences": tables["differences"].to_dict("records") if "differences" in tables else [],
    }  # fmt: skip
    plain: dict[str, Any] = _plain(document)
    return plain


def _plain(value: Any) -> Any:
    """JSON values: what is missing is null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
