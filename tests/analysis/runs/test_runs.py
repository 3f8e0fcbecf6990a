"""A stored run as tidy rows: nothing dropped, every gap with its reason, damage noticed."""

from __future__ import annotations

import gzip
import io
import json
import statistics
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support import simulated_run as simulated
from tests.support.simulated_run import small
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.runs import assemble, load, parquet
from wattbench.analysis.storage import source
from wattbench.analysis.storage.source import DamagedError, MissingError


def data_of(root: Path) -> assemble.RunData:
    return assemble.assemble(load.load(source.open_source(root)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = small(steady_s=2.0, blocks=3, lost=(("lab-b", 5),), skipped={"lab-a": 2})
    return simulated.write(tmp_path_factory.mktemp("run"), design)


@pytest.fixture(scope="module")
def data(root: Path) -> assemble.RunData:
    return data_of(root)


def test_every_planned_trial_is_one_row_in_planned_order(data: assemble.RunData) -> None:
    planned = [
        (host, t["planned_position"], t["kind"], t["image"], t["block"])
        for host, trials in data.document["plan"].items()
        for t in trials
    ]
    columns = ["host", "planned_position", "kind", "image", "block"]
    assert list(data.trials[columns].itertuples(index=False, name=None)) == planned


def test_positions_follow_the_clock_and_count_each_attempt_once(data: assemble.RunData) -> None:
    for _, mine in data.attempts.groupby("host"):
        ordered = mine.sort_values("position")
        assert list(ordered["position"]) == list(range(1, len(mine) + 1))
        assert ordered["started_at"].is_monotonic_increasing


def test_of_several_attempts_the_valid_one_is_the_trial_and_its_fault_is_made_good(
    data: assemble.RunData,
) -> None:
    row = data.trials.query("host == 'lab-a' and planned_position == 2").iloc[0]
    assert (row["status"], row["attempt"], row["late"]) == ("valid", 2, True)
    (found,) = [f for f in data.findings if f.code == "trial-failed" and "lab-a/002" in f.subject]
    assert str(found.severity) == "warning"
    assert found.evidence["accepted_attempt"] == 2


def test_of_attempts_that_all_failed_the_last_one_stands_with_its_reason(
    data: assemble.RunData,
) -> None:
    row = data.trials.query("host == 'lab-b' and planned_position == 5").iloc[0]
    assert (row["status"], row["attempt"]) == ("failed", 2)
    assert "CUDA error" in row["reason"]


def test_skipped_trials_say_why_and_have_no_numbers(data: assemble.RunData) -> None:
    rows = data.trials.query("host == 'lab-a' and block == 3")
    assert set(rows["status"]) == {"skipped"}
    assert set(rows["reason"]) == {"precise enough after 2 blocks"}
    assert rows[["energy_j", "duration_s", "position"]].isna().all().all()


def test_energy_above_idle_is_the_images_own_idle_power_taken_off(data: assemble.RunData) -> None:
    trials = data.trials[data.trials["status"] == "valid"]
    for row in trials[trials["kind"] == "workload"].itertuples():
        idle = trials.query("kind == 'idle' and host == @row.host and image == @row.image")
        watts = statistics.median(idle["energy_j"] / idle["duration_s"])
        assert row.idle_corrected_j == pytest.approx(row.energy_j - watts * row.duration_s)


def test_phases_add_up_to_the_window(data: assemble.RunData) -> None:
    keys = ["host", "planned_position", "attempt"]
    sums = data.phases.groupby(keys)[["energy_j", "duration_s"]].sum()
    valid = data.attempts.query("status == 'valid' and kind == 'workload'").set_index(keys)
    for column in ("energy_j", "duration_s"):
        assert sums.loc[valid.index, column].to_numpy() == pytest.approx(
            valid[column].to_numpy(float), rel=1e-6
        )


def test_a_host_that_was_not_fit_leaves_missing_trials_with_its_reason(tmp_path: Path) -> None:
    found = data_of(simulated.write(tmp_path, small(blocks=1, unfit={"lab-b": "no Docker"})))
    rows = found.trials[found.trials["host"] == "lab-b"]
    assert set(rows["status"]) == {"missing"}
    assert set(rows["reason"]) == {"the host was not fit: no Docker"}


def test_the_parquet_holds_the_rows_and_what_is_needed_years_later(data: assemble.RunData) -> None:
    table = pq.read_table(io.BytesIO(parquet.parquet_bytes(data)))
    facts = json.loads(table.schema.metadata[parquet.PARQUET_FACTS])
    assert facts["run_id"] == data.run_id
    assert set(facts["digests"]) == {"pytorch", "nvcr", "compiled"}
    assert facts["hosts"]["lab-a"]["kernel"] == "6.12.41"
    assert list(table.to_pandas()["image"]) == list(data.trials["image"])
    assert table.num_rows == len(data.trials)


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    return simulated.write(tmp_path, small(blocks=1, steady_s=2.0, idle_every=None, failing={}))


def test_a_record_that_was_changed_is_a_failed_attempt_that_says_so(small_root: Path) -> None:
    path = next(small_root.glob("hosts/lab-a/trials/001-*/1/trial.json"))
    path.write_text(path.read_text().replace('"energy_j"', '"energy_j" ', 1))
    found = data_of(small_root)
    row = found.trials.query("host == 'lab-a' and planned_position == 1").iloc[0]
    assert row["status"] == "failed"
    assert "SHA-256 differs" in row["reason"]
    assert any(f.code == "row-untraceable" and f.is_found_error for f in found.findings)
    assert (found.trials["status"] == "valid").sum() == len(found.trials) - 1


def test_an_object_that_is_gone_is_found_by_the_manifest(small_root: Path) -> None:
    gone = next(small_root.glob("hosts/*/trials/*/1/energibridge.csv.gz"))
    gone.unlink()
    found = [f for f in data_of(small_root).findings if f.code == "row-untraceable"]
    lost = [f for f in found if "not there" in f.message]
    assert lost[0].evidence["files"] == [gone.relative_to(small_root).as_posix()]


def test_reading_distinguishes_missing_from_damaged_and_unpacks(small_root: Path) -> None:
    opened = source.open_source(small_root)
    key = next(e.key for e in opened.list("hosts/lab-a/") if e.key.endswith(".csv.gz"))
    assert opened.open(key).read() == gzip.decompress((small_root / key).read_bytes())
    with pytest.raises(MissingError, match=r"nothing\.json"):
        opened.read("nothing.json")
    (small_root / key).write_bytes(b"not gzip")
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        opened.read(key)
    with pytest.raises(DamagedError, match="can't be unpacked"):
        source.FolderSource(small_root, verify=False).open(key)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "holds no plan"),
        ('{"plan": {}}', "names no run_id"),
        ('{"plan": {}, "run_id": "r", "schema": 99}', "upgrade wattbench"),
        ("{", "no JSON"),
    ],
)
def test_a_run_document_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=says):
        load.load(source.open_source(tmp_path))


def test_settings_are_those_of_the_experiment(small_root: Path) -> None:
    document = json.loads((small_root / "run.json").read_text())
    document["experiment"]["protocol"]["blocks"] = {"min": 10, "max": 30, "precision_pct": 0.5}
    settings = assemble.settings_of(document)
    assert (settings.reference, settings.alpha, settings.correction) == ("pytorch", 0.05, "holm")
    assert (settings.blocks_min, settings.blocks_max, settings.precision_pct) == (10, 30, 0.5)
    document["experiment"]["analysis"]["alpha"] = 2
    with pytest.raises(InputError, match="alpha"):
        assemble.settings_of(document)


def test_missing_cells_are_missing_and_never_zero(data: assemble.RunData) -> None:
    skipped = data.trials[data.trials["status"] == "skipped"]
    assert not (skipped.select_dtypes("number").fillna(pd.NA) == 0).any().any()
