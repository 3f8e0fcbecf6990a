"""What a report says of its idle trials: with the framework loaded, in the container, or nothing."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.trials import read_csv
from wattbench.analysis.report import Study, study
from wattbench.analysis.report.sections import method
from wattbench.analysis.storage.source import open_source

REFERENCE = Path(__file__).parents[2] / "reference/stored-run-1.tar.gz"


def stored(folder: Path, state: str | list[str] | None, watts: Mapping[str, float] = {}) -> Study:
    """The stored run, with or without a state of its idle trials.

    Args:
        watts: power of the idle trials by state, which they get in turn.
    """
    with tarfile.open(REFERENCE) as archive:
        archive.extractall(folder, filter="data")
    if state is not None:
        document = json.loads((folder / "run.json").read_text())
        document["experiment"]["protocol"]["idle_baseline"] |= {"per": "image", "state": state}
        (folder / "run.json").write_text(json.dumps(document))
        (folder / "manifest.json").unlink(missing_ok=True)
        states = itertools.cycle(watts or [state])
        for path in sorted(folder.glob("hosts/*/trials/*/*/trial.json")):
            record = json.loads(path.read_text())
            if (row := record["row"])["kind"] == "idle":
                row["idle_state"] = own = next(states)
                if isinstance(own, str) and own in watts:
                    row["energy_j"] = watts[own] * row["duration_s"]
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
    write_frame(found.data.trials, tmp_path / "trials.csv")
    assert read_csv(tmp_path / "trials.csv")["idle_state"].equals(states)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (["container", "loaded"], "idle container and idle, framework loaded; above idle: above the idle container"),
        (["loaded", "container"], "idle, framework loaded and idle container; above idle: above the idle, framework loaded"),
    ],
)  # fmt: skip
def test_a_run_with_both_states_shows_both_levels_and_subtracts_the_first_named(
    tmp_path: Path, declared: list[str], words: str
) -> None:
    watts = {"container": 7.0, "loaded": 9.5}
    found = stored(tmp_path, declared, watts)
    trials = found.data.trials
    assert dict(method.protocol(found.data))["idle baseline"].endswith(f"({words})")
    levels = found.tables["idle_states"].frame
    assert dict(zip(levels["idle_state"], levels["median_w"], strict=False)) == pytest.approx(watts)
    assert set(levels.loc[levels["is_subtracted"].astype(bool), "idle_state"]) == {declared[0]}
    idle = trials[trials["kind"] == "idle"]
    assert set(idle["idle_state"]) == set(watts)
    for host in found.data.hosts:
        measured = set(
            idle.loc[(idle["host"] == host) & (idle["idle_state"] == declared[0]), "image"]
        )
        work = trials[(trials["host"] == host) & (trials["kind"] == "workload")]
        has_own = work["image"].isin(measured)
        assert has_own.any()
        assert (~has_own).any()
        assert work.loc[~has_own, "idle_corrected_j"].isna().all()
        net = (work["energy_j"] - watts[declared[0]] * work["duration_s"])[has_own]
        assert work.loc[has_own, "idle_corrected_j"].tolist() == pytest.approx(net.tolist())
    said = "framework loaded" in found.tables["secondary"].caption
    assert said is (declared[0] == "loaded")


def test_a_run_with_one_state_has_no_table_of_states(tmp_path: Path) -> None:
    assert "idle_states" not in stored(tmp_path, "loaded").tables
