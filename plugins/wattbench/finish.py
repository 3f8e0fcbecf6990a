"""After the last trial: statistics across hosts, the report, and whether everything is accounted for."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import UserError
from wattbench import layout, news, past
from wattbench.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """How many planned trials ended how. Skipped ones were left out on purpose."""

    planned: int
    valid: int
    skipped: int
    lost: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every planned trial is valid or skipped, and not all of them skipped."""
        return not self.lost and self.valid > 0

    def sentence(self) -> str:
        """``17/18 trials valid; lost: …``."""
        wanted = self.planned - self.skipped
        text = f"{self.valid}/{wanted} trials valid"
        if self.skipped:
            text += f", {self.skipped} skipped on purpose"
        if not wanted:
            text += ": nothing was measured"
        if self.lost:
            shown = "; ".join(self.lost[:5])
            more = f"; and {len(self.lost) - 5} more" if len(self.lost) > 5 else ""
            text += f"; not accounted for: {shown}{more}"
        return text


def analyze(run: Run) -> dict[str, Any]:
    """Complete ``run.json``, compute the statistics, write report and manifests.

    Returns:
        ``sentence`` (the headline) and ``report`` (its key).
    """
    from analysis import report, source

    document = dict(run.document)
    hosts = {name: dict(entry) for name, entry in document["hosts"].items()}
    for name, entry in hosts.items():
        entry |= run.host_document(name) or {"problems": [], "reason": "check has not passed"}
        entry["pulls"] = run.pulls(name)
        entry["outcomes"] = run.outcomes(name)
    document["hosts"] = hosts
    run.store.put_json(layout.run_json_key(run.run_id), document)
    past.remember(run)

    with tempfile.TemporaryDirectory(prefix="wattbench-report-") as temporary:
        out = Path(temporary) / "report"
        made = report.make(source.from_store(run.store, layout.run_key(run.run_id)), out)
        run.store.put(layout.trials_parquet_key(run.run_id), made.trials_parquet)
        run.store.upload_dir(out, layout.report_key(run.run_id))
        run.store.write_manifest(layout.report_key(run.run_id))
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    for event in news.write(run, summary):
        log.warning("%s: %s", event.title, event.text)
    run.store.write_manifest(layout.run_key(run.run_id))
    return {"sentence": made.headline, "report": layout.report_key(run.run_id, "index.html")}


def account(run: Run) -> Account:
    """Count what became of every planned trial of every host that was meant to run."""
    planned = valid = skipped = 0
    lost: list[str] = []
    for host in run.experiment.hosts:
        try:
            records, outcomes = run.records(host), run.outcomes(host)
        except UserError as error:
            records, outcomes = {}, {}
            lost.append(f"{host}: {error}")
        for trial in run.plan(host):
            planned += 1
            attempts = records.get(trial.name, [])
            outcome = outcomes.get(trial.name, {})
            if any(r.row.status == "valid" for r in attempts):
                valid += 1
            elif outcome.get("status") == "skipped":
                skipped += 1
            else:
                last = attempts[-1].row if attempts else None
                why = (
                    (last.reason or last.status) if last else outcome.get("reason", "never started")
                )
                lost.append(f"{host}/{trial.name}: {why}")
    return Account(planned, valid, skipped, tuple(lost))
