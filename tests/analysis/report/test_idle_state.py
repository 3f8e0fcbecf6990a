"""What a report says of its idle trials: with the framework loaded, in the container, or nothing."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from wattbench.analysis.model.trials import read_csv, write_csv
from wattbench.analysis.report import Study, study
from wattbench.analysis.report.sections import method
from wattbench.analysis.storage.source import open_source

REFERENCE = Path(__file__).parents[2] / "reference/stored-run-1.tar.gz"


def stored(folder: Path, state: str | None) -> Study:
    """The stored run, with or without a state of its idle trials."""
    with tarfile.open(REFERENCE) as archive:
        archive.extractall(folder, filter="data")
    if state is not None:
        document = json.loads((folder / "run.json").read_text())
        document["experiment"]["protocol"]["idle_baseline"] |= {"per": "image", "state": state}
        (folder / "run.json").write_text(json.dumps(document))
        (folder / "manifest.json").unlink(missing_ok=True)
        for path in folder.glob("hosts/*/trials/*/*/trial.json"):
            record = json.loads(path.read_text())
            if record["row"]["kind"] == "idle":
                record["row"]["idle_state"] = state
                path.write_text(json.dumps(record))
    return study(open_source(str(folder)))


@pytest.mark.parametrize(
    ("state", "said", "above_idle", "caption"),
    [
        (None, None, "power measured in the run. Each", "The image runs and does nothing."),
        ("container", "(idle container)", "power measured in the run. Each", "The image runs and does nothing."),
        ("loaded", "(idle, framework loaded)", "power measured in the run, framework loaded. Each",
         "The image holds its framework and model loaded and does nothing."),
    ],
)  # fmt: skip
def test_a_report_says_what_was_loaded_in_idle_trials(
    tmp_path: Path, state: str | None, said: str | None, above_idle: str, caption: str
) -> None:
    found = stored(tmp_path, state)
    baseline = dict(method.protocol(found.data))["idle baseline"]
    if said is None:
        assert baseline.endswith(" blocks")
    else:
        assert baseline.endswith(f" blocks {said}")
    assert above_idle in found.tables["secondary"].caption
    assert found.tables["idle_energy"].caption == caption
    idle = found.data.trials["kind"] == "idle"
    assert idle.any()
    states = found.data.trials["idle_state"]
    assert states[~idle].isna().all()
    assert set(states[idle].dropna()) == ({state} if state else set())
    write_csv(found.data.trials, tmp_path / "trials.csv")
    assert read_csv(tmp_path / "trials.csv")["idle_state"].equals(states)
