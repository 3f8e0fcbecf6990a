"""``python -m analysis compare`` on stored runs of known truth: answers, files, exit codes, bad input."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import html5lib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support import simulated_run as simulated
from tests.support.s3_server import KEY, RCLONE, SECRET, Server
from wattbench.analysis.__main__ import main
from wattbench.analysis.model.trials import COLUMNS, read_csv
from wattbench.analysis.runs.assemble import assemble
from wattbench.analysis.runs.load import load
from wattbench.analysis.storage.source import open_source
from wattbench.analysis.trends.compare import Options, compare

ROOT = Path(__file__).resolve().parents[3]


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


bench = _load("bench_history", ROOT / "tests" / "bench" / "bench_history.py")
SMALL = {"hosts": 2, "blocks": 8, "trial_pct": 0.5, "night_pct": 0.05, "rise_host": 1, "seed": 3}


def year(**more: object) -> object:
    return bench.Year(**(SMALL | more))


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> tuple[Path, object]:
    """Thirty nights; host-01's torch-slim rises by 2 % on the twentieth with another driver."""
    planted = year(nights=30, rise_night=20)
    return bench.write(tmp_path_factory.mktemp("nights"), planted), planted


def found(out: Path, code: str, verdict: str = "found") -> list[dict]:
    findings = json.loads((out / "findings.json").read_text())
    return [f for f in findings if f["code"] == code and f["verdict"] == verdict]


def test_the_planted_regression_is_named_with_its_night_size_and_cause(
    nights, tmp_path, capsys
) -> None:
    runs, planted = nights
    assert main(["compare", str(runs), "--out", str(tmp_path)]) == 1
    (alert,) = found(tmp_path, "regression")
    evidence = alert["evidence"]
    assert alert["severity"] == "error"
    assert (evidence["host"], evidence["image"]) == ("host-01", "torch-slim")
    assert evidence["first_run"] == planted.run_id(20)
    assert evidence["first_night"] == "2026-01-21"
    assert evidence["lower_pct"] < 2.0 < evidence["upper_pct"]
    assert evidence["change_pct"] == pytest.approx(2.0, abs=0.3)
    assert [(c["what"], c["before"], c["after"]) for c in evidence["changed"]] == [
        ("driver", "570.86", "575.57")
    ]
    assert evidence["digest_before"] == evidence["digest_after"] == bench.digest("torch-slim")
    assert capsys.readouterr().out.splitlines()[0] == (
        f"torch-slim on host-01 uses {evidence['change_pct']:.1f} % more energy since 2026-01-21."
    )


def test_it_is_named_in_the_first_comparison_that_holds_its_night(nights, tmp_path) -> None:
    runs, planted = nights
    for last in (20, 21, 22, 23):
        named = [str(runs / planted.run_id(n)) for n in range(last)]
        errors = [f for f in compare(named, Options(), str).findings if f.is_found_error]
        if last == 20:
            assert not errors
        else:
            (alert,) = errors
            assert alert.evidence["first_run"] == planted.run_id(20)
            assert alert.evidence["confirmed"] is (last == 23)


def test_a_rise_below_the_limit_is_a_warning_and_no_error(nights, tmp_path) -> None:
    runs, _ = nights
    assert main(["compare", str(runs), "--out", str(tmp_path), "--regression-pct", "5"]) == 0
    assert not found(tmp_path, "regression")
    assert [
        f["severity"] for f in found(tmp_path, "drift") if f["subject"] == "image torch-slim"
    ] == ["warning"]


def test_steady_nights_say_so_and_exit_0(tmp_path, capsys) -> None:
    runs = bench.write(tmp_path, year(nights=10, rise_night=99))
    assert main(["compare", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert "No image needs 1 % more energy than before, on 2 hosts over 10 nights." in (
        capsys.readouterr().out
    )
    assert len(found(tmp_path / "out", "regression", "not-found")) == 2


@pytest.fixture(scope="module")
def compared(nights, tmp_path_factory) -> Path:
    """The files of a comparison of all thirty nights."""
    out = tmp_path_factory.mktemp("compared")
    main(["compare", str(nights[0]), "--out", str(out)])
    return out


def test_every_file_is_there_and_the_rows_are_the_runs_own(nights, compared) -> None:
    runs, planted = nights
    tables = {p.stem for p in (compared / "tables").glob("*.csv")}
    assert tables == {"runs", "changed_facts", "levels", "changes", "control"}
    trials = read_csv(compared / "trials.csv")
    assert tuple(trials.columns) == COLUMNS
    stored = pd.concat(
        [pq.read_table(p).to_pandas() for p in sorted(runs.glob("*/trials.parquet"))],
        ignore_index=True,
    )
    pd.testing.assert_frame_equal(
        trials.reset_index(drop=True), stored.astype(trials.dtypes.to_dict()), rtol=1e-12
    )
    summary = json.loads((compared / "summary.json").read_text())
    assert summary["trials"] == len(stored)
    assert summary["valid"] == int((stored["status"] == "valid").sum())
    assert [r["run_id"] for r in summary["runs"]] == [planted.run_id(n) for n in range(30)]


def test_levels_in_the_table_are_medians_over_the_control_workload(nights, compared) -> None:
    runs, planted = nights
    levels = pd.read_csv(compared / "tables" / "levels.csv")
    name = planted.run_id(5)
    stored = pq.read_table(runs / name / "trials.parquet").to_pandas()
    stored = stored[stored["status"] == "valid"]
    mine = levels[(levels["run_id"] == name) & (levels["kind"] == "workload")]
    assert len(mine) == 8
    for row in mine.itertuples():
        logs = (
            stored.assign(log=np.log(stored["energy_j"])).groupby(["host", "image"])["log"].median()
        )
        assert row.log_ratio == pytest.approx(logs[row.host, row.image] - logs[row.host, "control"])
        assert row.n == int(((stored["host"] == row.host) & (stored["image"] == row.image)).sum())


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_page_is_valid_self_contained_and_small(nights, tmp_path, count) -> None:
    runs, planted = nights
    named = [str(runs / planted.run_id(18 + n)) for n in range(count)]
    main(["compare", *named, "--out", str(tmp_path)])
    page = (tmp_path / "index.html").read_text()
    html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith("#") or (tmp_path / link).is_file() for link in links)
    assert "@import" not in page
    assert "url(http" not in page
    assert not re.search(r"\bnan\b|\bNone\b", page)
    assert len(page) < 200_000


def test_two_runs_are_held_against_each_other(nights, tmp_path, capsys) -> None:
    runs, planted = nights
    before, after = (str(runs / planted.run_id(n)) for n in (19, 20))
    code = main(["compare", before, after, "--out", str(tmp_path)])
    differences = pd.read_csv(tmp_path / "tables" / "differences.csv")
    risen = differences[
        (differences["host_after"] == "host-01") & (differences["image"] == "torch-slim")
    ]
    assert risen["verdict"].tolist() == ["more"]
    assert risen["change_pct"].iloc[0] == pytest.approx(2.0, abs=0.7)
    assert len(differences) == 8
    changed = pd.read_csv(tmp_path / "tables" / "changed_facts.csv")
    assert changed[["host", "what", "before", "after"]].to_numpy().tolist() == [
        ["host-01", "driver", 570.86, 575.57]
    ]
    (alert,) = found(tmp_path, "regression")
    # An error only where the whole interval lies above the limit.
    assert (alert["severity"] == "error") is (alert["evidence"]["lower_pct"] >= 1.0) is (code == 1)
    effects = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert len(effects) == 2 * 2 * 4
    assert "in run B than in run A" in capsys.readouterr().out


def test_one_run_is_stated_and_the_rest_computed(nights, tmp_path, capsys) -> None:
    runs, planted = nights
    assert main(["compare", str(runs / planted.run_id(0)), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("One run only: ")
    assert "nothing to compare it with" in printed.err
    assert len(pd.read_csv(tmp_path / "tables" / "effects.csv")) == 8


def test_runs_of_different_hosts_are_compared_host_against_host(tmp_path) -> None:
    class Elsewhere(bench.Year):
        def host(self, number: int) -> str:
            return f"other-{number}"

    here = bench.write(tmp_path / "a", year(nights=1, hosts=1, rise_night=9), [0])
    there = bench.write(
        tmp_path / "b", Elsewhere(**(SMALL | {"hosts": 1, "rise_night": 9, "seed": 4})), [1]
    )
    result = compare([str(here), str(there)], Options(), str)
    assert {(d.host_before, d.host_after) for d in result.differences} == {("host-00", "other-0")}


def test_a_run_that_cannot_be_read_is_a_finding_beside_the_others(nights, tmp_path) -> None:
    runs, planted = nights
    for n in range(7):
        shutil.copytree(runs / planted.run_id(n), tmp_path / "runs" / planted.run_id(n))
    (tmp_path / "runs" / planted.run_id(3) / "trials.parquet").write_bytes(b"PAR1 torn")
    main(["compare", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    (note,) = found(tmp_path / "out", "file-unread")
    assert planted.run_id(3) in note["message"]
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "runs.csv")) == 6


def test_unequal_work_between_runs_is_an_error(nights, tmp_path) -> None:
    runs, planted = nights
    for n in (0, 1):
        shutil.copytree(runs / planted.run_id(n), tmp_path / str(n))
    path = tmp_path / "1" / "trials.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("images_inferred")
    doubled = pd.Series(table["images_inferred"].to_pylist(), dtype="Int64") * 2
    pq.write_table(table.set_column(place, "images_inferred", [doubled.to_numpy("int64")]), path)
    assert (
        main(["compare", str(tmp_path / "0"), str(tmp_path / "1"), "--out", str(tmp_path / "o")])
        == 1
    )
    assert "error" in {f["severity"] for f in found(tmp_path / "o", "workload-changed")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: holds no run"),
        (["a", "copy"], "are both run"),
        (["a", "foreign"], "no image in common"),
        (["a", "--reference", "nothing"], "--reference nothing: no run has that image"),
        (["a", "--regression-pct", "0"], "--regression-pct 0: give a number between 0 and 100"),
        (["a", "--out", "a"], "--out a: is a run to be compared"),
        (["torn"], "trials.parquet can't be read"),
        (["idle"], "no valid trial with energy"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    nights, tmp_path, monkeypatch, capsys, arguments, words
) -> None:
    runs, planted = nights
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("a", "copy"):
        shutil.copytree(runs / planted.run_id(0), tmp_path / name)
    bench.write(
        tmp_path / "f", year(nights=1, images=("x", "y"), rise_image="x", control=False), [1]
    )
    (tmp_path / "f" / "runs" / year().run_id(1)).rename(tmp_path / "foreign")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "trials.parquet").write_bytes(b"no parquet")
    (tmp_path / "idle").mkdir()
    table = pq.read_table(tmp_path / "a" / "trials.parquet")
    failed = table.set_column(
        table.column_names.index("status"), "status", [["failed"] * len(table)]
    )
    pq.write_table(failed, tmp_path / "idle" / "trials.parquet")
    assert main(["compare", "--out", "out", *arguments]) == 2
    printed = capsys.readouterr().err.strip()
    assert words in printed
    assert "\n" not in printed
    assert not (tmp_path / "out").exists()


@pytest.fixture
def store(nights, tmp_path, monkeypatch) -> Iterator[str]:
    """Nine nights in an authenticated S3 server; gives the prefix of the runs."""
    if RCLONE is None:
        pytest.skip("rclone is not installed: no S3 server to read from")
    runs, planted = nights
    for n in range(15, 24):
        shutil.copytree(
            runs / planted.run_id(n), tmp_path / "s3/bucket/lab/runs" / planted.run_id(n)
        )
    server = Server(tmp_path / "s3")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server.start()
    yield "s3://bucket/lab/runs"
    server.stop()


def test_runs_are_read_straight_from_the_store(store, nights, tmp_path, capsys) -> None:
    _, planted = nights
    assert main(["compare", store, "--out", str(tmp_path / "out")]) == 1
    (alert,) = found(tmp_path / "out", "regression")
    assert alert["evidence"]["first_run"] == planted.run_id(20)
    one = [f"{store}/{planted.run_id(19)}", f"{store}/nightly-20260122*"]
    result = compare(one, Options(), str)
    assert [r.run_id for r in result.runs] == [planted.run_id(19), planted.run_id(21)]
    assert main(["compare", store + "/none-*", "--out", str(tmp_path / "no")]) == 2
    assert main(["compare", "s3://elsewhere/runs", "--out", str(tmp_path / "no")]) == 2
    assert "elsewhere" in capsys.readouterr().err


def test_a_run_without_its_parquet_file_is_computed_from_its_records(tmp_path) -> None:
    root = simulated.write(tmp_path, simulated.small())
    assert not list(root.rglob("trials.parquet"))
    expected = assemble(load(open_source(root)))
    result = compare([str(root)], Options(), str)
    assert result.trials == len(expected.trials)
    assert result.valid == int((expected.trials["status"] == "valid").sum()) > 0
    assert result.reference == expected.experiment["reference"]
    host = expected.hosts[0]
    assert result.runs[0].facts["hosts"][host]["kernel"] == expected.facts(host)["host"]["kernel"]


def test_a_cap_that_changed_between_two_runs_is_named_beside_the_changed_level(tmp_path) -> None:
    design = simulated.small(blocks=5)
    before, after = (simulated.write(tmp_path / name, design) for name in ("before", "after"))
    cap = '"rapl.package[0].long_term_w": '
    for path in after.rglob("*.json"):
        text = path.read_text().replace(before.name, "later-" + before.name)
        path.write_text(text.replace(cap + "65.0", cap + "45.0"))
    result = compare([str(before), str(after)], Options(), str)
    changed = [f for f in result.findings if f.code == "state-changed" and f.verdict == "found"]
    assert changed
    assert all("rapl.package[0].long_term_w: 65 → 45" in f.message for f in changed)
    (level, *_) = [f for f in result.findings if f.code == "regression"]
    assert any(c["what"] == "rapl.package[0].long_term_w" for c in level.evidence["changed"])


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", "--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    for word in (
        "s3://",
        "AWS_ENDPOINT_URL",
        "exit codes",
        "examples",
        "--regression-pct",
        "nights",
    ):
        assert word in printed
