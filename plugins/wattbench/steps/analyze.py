"""Task `analyze`: completes run.json, computes the statistics, writes report and manifests."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.run_document import HostDocument, RunDocument
from wattbench.history import host_history
from wattbench.run import host_claims, store_keys
from wattbench.run.stored_run import Run
from wattbench.steps import run_events

log = logging.getLogger(__name__)


def analyze(run: Run) -> dict[str, str]:
    """Complete ``run.json``, compute the statistics, write report and manifests.

    Returns:
        ``sentence`` (the headline) and ``report`` (its key).
    """
    from wattbench.analysis import report
    from wattbench.analysis.storage import source

    hosts: dict[str, HostDocument] = {
        name: {
            **entry,
            **_left_by(run, name),
            "pulls": run.pulls(name),
            "outcomes": run.outcomes(name),
        }
        for name, entry in run.document.get("hosts", {}).items()
    }
    document: RunDocument = {**run.document, "hosts": hosts}
    run.store.put_json(store_keys.run_json_key(run.run_id), document)
    host_history.remember(run)

    with tempfile.TemporaryDirectory(prefix="wattbench-report-") as temporary:
        out = Path(temporary) / "report"
        made = report.make(source.from_store(run.store, store_keys.run_key(run.run_id)), out)
        run.store.put(store_keys.trials_parquet_key(run.run_id), made.trials_parquet)
        run.store.upload_dir(out, store_keys.report_key(run.run_id))
        run.store.write_manifest(store_keys.report_key(run.run_id))
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    for event in run_events.write(run, summary):
        log.warning("%s: %s", event.title, event.text)
    run.store.write_manifest(store_keys.run_key(run.run_id), _raw_files_as_put(run))
    host_claims.close_run(run.store, run.run_id)
    return {"sentence": made.headline, "report": store_keys.report_key(run.run_id, "index.html")}


def _raw_files_as_put(run: Run) -> dict[str, str]:
    """SHA-256 of the attempts' raw files when they were put into the store, by their names in the run."""
    run_key, found = store_keys.run_key(run.run_id), dict[str, str]()
    for listed in run.store.list(f"{run_key}/hosts/"):
        if listed.key.endswith("/attempt.json"):
            folder = listed.key.removeprefix(f"{run_key}/").removesuffix("attempt.json")
            stored = AttemptReport.of(run.store.get_json(listed.key)).stored
            found |= {f"{folder}{name}": sha256 for name, sha256 in stored.items()}
    return found


def _left_by(run: Run, host: str) -> HostDocument:
    """A host's document, or why there is none."""
    try:
        found = run.host_document(host)
    except InputError as error:
        return {"problems": [], "reason": str(error)}
    return found or {"problems": [], "reason": "check has not passed"}
