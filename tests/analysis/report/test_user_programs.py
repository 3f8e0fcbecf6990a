"""What a report says of a program of a user's: its unit, and whether equal work is shown."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattbench.analysis.presentation.table import Head
from wattbench.analysis.report import Study, study
from wattbench.analysis.report.sections import method
from wattbench.analysis.storage.source import open_source

REFERENCE = Path(__file__).parents[2] / "reference/stored-run-1.tar.gz"
WORKLOAD = {
    "kind": "command", "command": ["python3", "/bench/bench.py"], "files": {},
    "unit": {"name": "document", "pattern": "processed (.*)", "count": None},
    "same_work": {"pattern": "checksum (.*)", "tolerance": None}, "ready": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def of_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Study]:
    """The stored run as if its images had run a program of a user's."""

    def make(same_work: str | None) -> Study:
        folder = tmp_path_factory.mktemp("run")
        with tarfile.open(REFERENCE) as archive:
            archive.extractall(folder, filter="data")
        document = json.loads((folder / "run.json").read_text())
        document["experiment"]["workload"] = WORKLOAD
        (folder / "run.json").write_text(json.dumps(document))
        (folder / "manifest.json").unlink(missing_ok=True)
        for path in folder.glob("hosts/*/trials/*/*/trial.json"):
            record = json.loads(path.read_text())
            if record["row"]["kind"] == "workload":
                path.write_text(json.dumps(as_program(record, same_work)))
        return study(open_source(str(folder)))

    return make


def as_program(record: dict[str, Any], same_work: str | None) -> dict[str, Any]:
    joules = record["row"]["energy_j"]
    record["row"] |= {
        "images_inferred": None, "j_per_image": None, "unit": "document", "units": 500.0,
        "j_per_unit": None if joules is None else joules / 500,
    }  # fmt: skip
    record["work"] |= {
        "results": [], "weights_sha256": None, "inputs_sha256": {}, "unit": "document", "units": 500.0,
        "same_work": same_work,
    }  # fmt: skip
    record["expected"] |= {"passes": [], "reports_itself": False, "program": None}
    return record


def test_joules_are_per_document_and_equal_work_is_shown(of_program: Callable[..., Study]) -> None:
    found = of_program("00ff")
    assert "Equal work is not proven" not in found.conclusion.headline.conditions
    images = found.tables["images"]
    assert Head("median", "J/document", is_number=True) in images.grid().heads
    assert images.frame["median_j_per_unit"].notna().all()
    assert images.frame["median_j_per_image"].isna().all()
    labels = {s.label for h in found.conclusion.hosts for s in h.secondary}
    assert "energy per document" in labels
    assert not any("image" in label for label in labels)
    said = dict(method.protocol(found.data))
    assert said["command"] == "python3 /bench/bench.py"
    assert said["unit of work"] == "document"
    assert said["equal work"] == "lines that match 'checksum (.*)'"


def test_without_a_value_of_equal_work_the_headline_says_so(
    of_program: Callable[..., Study],
) -> None:
    found = of_program(None)
    assert found.conclusion.headline.conditions.startswith("Equal work is not proven. ")
    (finding,) = [f for f in found.findings if f.code == "unequal-work"]
    assert finding.verdict == "undecidable"
