"""A run's report as files and as a command: what is there, what it says of runs that went badly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support import simulated_run as simulated
from tests.support.simulated_run import Design, small
from wattbench.analysis import report
from wattbench.analysis.__main__ import main
from wattbench.analysis.model.trials import COLUMNS
from wattbench.analysis.report.markdown import markdown
from wattbench.analysis.storage import source

pytestmark = pytest.mark.slow

CHECKER = Path(__file__).parents[3].parent / "shared" / "contract" / "check_report.py"


def make(folder: Path, design: Design) -> report.Study:
    return report.study(source.open_source(simulated.write(folder, design)))


def comment(study: report.Study) -> str:
    return markdown(study.data, study.conclusion, study.findings)


def places(design: Design, *, host: str | None = None, image: str | None = None) -> tuple[Any, ...]:
    """(host, planned position) of trials of a host, an image, or all."""
    return tuple(
        (h, t["planned_position"])
        for h in design.hosts
        for t in simulated._plan(design, h)
        if host in (None, h) and image in (None, t["image"])
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = small(kind="modelled", lost=(("lab-b", 4),), steady_s=3.0)
    return simulated.write(tmp_path_factory.mktemp("run"), design)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> report.Made:
    return report.make(source.open_source(root), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def out(made: report.Made) -> Path:
    return made.page.parent


@pytest.mark.parametrize("factor", [1.0, 1.04])
def test_a_planted_carry_over_is_reported_and_none_where_none_is(
    tmp_path: Path, factor: float
) -> None:
    """From raw logs: what runs after one of the images draws that much more."""
    design = small(
        hosts={"lab-a": simulated.HOSTS["lab-a"]}, blocks=12, idle_every=None, failing={}, kind="modelled", steady_s=3.0,
        images={**small().images, "nvcr": replace(simulated.IMAGES["nvcr"], carries=factor)},
    )  # fmt: skip
    done = make(tmp_path, design)
    (found,) = [f for f in done.findings if f.code == "carry-over"]
    assert found.verdict == ("not-found" if factor == 1.0 else "found"), found.message


def test_every_file_of_the_contract_is_there_and_not_empty(out: Path) -> None:
    forms = (form.file for form in report.SHORT_FORMS.values())
    for name in ("index.html", "summary.json", "trials.csv", "attempts.csv", "phases.csv",
                 "findings.json", "report.txt", *forms):  # fmt: skip
        assert (out / name).stat().st_size > 0, name
    csvs = {p.stem for p in (out / "tables").glob("*.csv")}
    assert csvs == {p.stem for p in (out / "tables").glob("*.tex")}
    assert {"energy", "normality", "time", "dunn", "effects", "relative"} <= csvs
    figures = {p.stem for p in (out / "figures").glob("*.svg")}
    assert figures
    assert figures == {p.stem for p in (out / "figures").glob("*.png")}


def test_the_contracts_own_checker_accepts_it(out: Path) -> None:
    if not CHECKER.is_file():
        pytest.skip("the contract's checker is not beside this repository")
    done = subprocess.run(
        [sys.executable, str(CHECKER), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_trials_csv_has_the_schema_and_agrees_with_the_parquet(
    made: report.Made, out: Path, tmp_path: Path
) -> None:
    trials = pd.read_csv(out / "trials.csv")
    assert tuple(trials.columns) == COLUMNS
    parquet = tmp_path / "trials.parquet"
    parquet.write_bytes(made.trials_parquet)
    stored = pd.read_parquet(parquet)
    assert stored["energy_j"].to_numpy(float) == pytest.approx(
        trials["energy_j"].to_numpy(float), nan_ok=True
    )
    assert list(stored["image"]) == list(trials["image"])


def test_the_summary_counts_what_the_csv_counts_and_has_the_headline_that_the_caller_gets(
    made: report.Made, out: Path
) -> None:
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    trials = pd.read_csv(out / "trials.csv")
    assert summary["headline"] == made.headline
    assert summary["planned"] == len(trials)
    assert summary["trials"] == trials["status"].value_counts().to_dict()
    assert summary["modelled"] is True
    found = json.loads((out / "findings.json").read_text())
    errors = [f for f in found if f["verdict"] == "found" and f["severity"] == "error"]
    assert summary["findings"]["error"] == len(errors) > 0
    assert found[: len(errors)] == errors  # the worst come first


def test_a_further_attempt_is_a_row_of_attempts_and_not_of_trials(out: Path) -> None:
    trials, attempts = (pd.read_csv(out / f"{n}.csv") for n in ("trials", "attempts"))
    assert len(attempts) == len(trials) + 2
    assert set(attempts.loc[attempts["attempt"] == 2, "planned_position"]) == {2, 4}


def test_modelled_joules_are_called_so_on_every_kind_of_page(made: report.Made, out: Path) -> None:
    assert made.headline.startswith("Modelled, not measured")
    assert "Modelled, not measured" in (out / "index.html").read_text()
    assert "Modelled, not measured" in (out / "report.md").read_text()
    for name in ("energy", "pairs", "phases", "ranking"):
        assert "Modelled, not measured" in (out / "tables" / f"{name}.tex").read_text()


def test_measured_joules_are_nowhere_called_modelled(tmp_path: Path) -> None:
    study = make(tmp_path, small(blocks=1, steady_s=2.0))
    assert study.mark == ""
    assert "modelled, not measured" not in comment(study).lower()


def test_raw_files_are_listed_with_the_checksums_of_what_is_stored(root: Path, out: Path) -> None:
    listed = pd.read_csv(out / "tables" / "raw_files.csv")
    assert len(listed) > 30
    for row in listed.iloc[::7].itertuples():
        data = (root / str(row.file)).read_bytes()
        assert (row.bytes, row.sha256) == (len(data), hashlib.sha256(data).hexdigest())


# Runs that went badly ----------------------------------------------------------------------------


def test_a_run_without_any_valid_trial_still_has_a_report_that_says_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    design = small(blocks=1, steady_s=2.0, idle_every=None)
    design = small(blocks=1, steady_s=2.0, idle_every=None, lost=places(design), failing={})
    run, out = simulated.write(tmp_path, design), tmp_path / "report"
    assert main(["report", str(run), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "No verdict: none of 6 planned trials is valid."
    assert lines[-1] == str(out / "index.html")
    assert not any(word in printed.out for word in ("less", "more", "equivalent"))
    assert "report: drawing figures" in printed.err
    page = (out / "index.html").read_text()
    body = page[page.index("<body") :]
    assert body.index("none of 6 planned trials is valid") < body.index("<section")
    assert (out / "report.md").read_text().startswith("### No verdict")
    trials = pd.read_csv(out / "trials.csv")
    assert set(trials["status"]) == {"failed"}
    assert trials["reason"].notna().all()


def test_a_host_that_was_not_fit_is_named_and_the_other_is_concluded(tmp_path: Path) -> None:
    study = make(tmp_path, small(blocks=7, steady_s=2.0, unfit={"lab-b": "Docker is not running"}))
    said = comment(study)
    assert "Host lab-b has no valid trial (the host was not fit: Docker is not running)." in said
    assert study.conclusion.headline.basis == "one host"
    assert set(study.tables["pairs"].frame["host"]) == {"lab-a"}
    assert set(study.tables["energy"].frame["basis"]) == {"lab-a"}


def test_an_image_missing_on_one_host_is_named_and_the_rest_is_compared(tmp_path: Path) -> None:
    design = small(blocks=2, steady_s=2.0, idle_every=None)
    lost = places(design, host="lab-b", image="nvcr")
    study = make(tmp_path, small(blocks=2, steady_s=2.0, idle_every=None, lost=lost, failing={}))
    assert "Image nvcr has no valid trial on lab-b (" in comment(study)
    pairs = study.tables["pairs"].frame.set_index(["host", "a", "b"])
    assert pairs.loc[("lab-b", "nvcr", "pytorch"), "reason"] == "nvcr has no valid trial here"
    assert pd.notna(pairs.loc[("lab-b", "compiled", "pytorch"), "estimate_pct"])
    assert pd.notna(pairs.loc[("lab-a", "nvcr", "pytorch"), "estimate_pct"])


def test_one_image_only_is_measured_and_said_to_have_nothing_to_compare_with(
    tmp_path: Path,
) -> None:
    images = {"pytorch": simulated.IMAGES["pytorch"]}
    study = make(
        tmp_path, small(images=images, blocks=2, steady_s=2.0, failing={}, idle_every=None)
    )
    assert study.conclusion.headline.sentence == "No verdict: pytorch is the only image."
    assert "One image only" in comment(study)
    assert list(study.tables["energy"].frame["n"]) == [2, 2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The smallest run there is, without a manifest and with hostile texts, and its report."""
    folder = tmp_path_factory.mktemp("tiny")
    design = small(
        hosts={"lab-a": simulated.HOSTS["lab-a"]},
        images={k: simulated.IMAGES[k] for k in ("pytorch", "cuda")},
        blocks=1, steady_s=2.0, failing={}, idle_every=None,
    )  # fmt: skip
    run = simulated.write(folder, design)
    document = json.loads((run / "run.json").read_text())
    document["experiment"]["description"] = "<script>alert(1)</script>"
    document["skipped_images"] = {"evil": "<img src=x onerror=alert(1)> | [x](http://example.com)"}
    (run / "run.json").write_text(json.dumps(document))
    (run / "manifest.json").unlink()
    return run, report.make(source.open_source(run), folder / "report").page.parent


def test_one_host_one_block_estimates_and_decides_nothing(tiny: tuple[Path, Path]) -> None:
    out = tiny[1]
    headline = json.loads((out / "summary.json").read_text())["headline"]
    assert "No image is shown to use the least energy" in headline
    ranking = pd.read_csv(out / "tables" / "ranking.csv")
    assert set(ranking["verdict"].dropna()) == {"undecided"}
    undefined = pd.read_csv(out / "tables" / "undefined.csv")
    assert "one trial has no standard deviation" in set(undefined["reason"])


def test_the_same_run_gives_the_same_bytes(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    run, out = tiny
    report.make(source.open_source(run), tmp_path)

    def sums(folder: Path) -> dict[str, str]:
        return {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*")
            if p.is_file()
        }

    assert sums(tmp_path) == sums(out)


def test_without_a_manifest_the_hosts_own_checksums_are_listed(tiny: tuple[Path, Path]) -> None:
    run, out = tiny
    listed = pd.read_csv(out / "tables" / "raw_files.csv")
    key = Path(listed["file"].iloc[0])
    attempt = json.loads((run / key.parent / "attempt.json").read_text())
    assert listed["sha256"].iloc[0] == attempt["files"][key.name]["sha256"]


def test_names_and_messages_cannot_inject_markup(tiny: tuple[Path, Path]) -> None:
    page = (tiny[1] / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    text = (tiny[1] / "report.md").read_text()
    assert "\\[x\\](http" in text
    assert "\\<img" in text


def test_trials_skipped_by_stopping_early_are_counted_apart(tmp_path: Path) -> None:
    study = make(
        tmp_path, small(blocks=3, steady_s=2.0, skipped={"lab-a": 2}, failing={}, idle_every=None)
    )
    summary = report.summary_of(study)
    assert summary["trials"] == {"valid": 15, "skipped": 3}
    assert summary["findings"]["error"] == 0


# The command -------------------------------------------------------------------------------------


def test_the_command_prints_markdown_without_writing_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulated.write(
        tmp_path / "run", small(blocks=1, steady_s=2.0, failing={}, idle_every=None)
    )
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["report", str(run), "--format", "md"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("### ")
    assert "| rank | image |" in printed
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["NOWHERE", "--out", "r"], "no such folder"),
        (["EMPTY", "--out", "r"], "no EnergiBridge CSV, log, summary table or run"),
        (["EMPTY", "--format", "md"], "run.json"),
        (["EMPTY"], "--out"),
        (["RUN", "--out", "FILE"], "is a file"),
        (["s3://", "--out", "r"], "bucket"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("x")
    arguments = [str(root) if a == "RUN" else a for a in arguments]
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    lines = [
        line
        for line in printed.err.splitlines()
        if not line.startswith("report: reading") and "is not a run: doing" not in line
    ]
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "r" / "index.html").exists()


def test_a_folder_of_runs_is_reported_as_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for second in (1, 2):
        name = f"paper-20260314T22000{second}Z-a1b2c3"
        simulated.write(tmp_path, small(steady_s=3.0, run_id=name))
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) in (0, 1)
    assert "wattbench compare" in capsys.readouterr().err
    assert (tmp_path / "out" / "tables" / "runs.csv").is_file()


def test_a_campaign_of_another_tool_is_reported_as_an_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i},{1000 + i}.5,{100 + i}.25\n" for i in range(1, 8))
    for image in ("alpha", "beta"):
        (tmp_path / f"{image}_output.csv").write_text(
            f"Run,Energy Consumption (Joules),Execution Time (Seconds)\n{rows}"
        )
    out = tmp_path / "out"
    assert main(["report", str(tmp_path), "--out", str(out)]) in (0, 1)
    assert "wattbench audit" in capsys.readouterr().err
    energy = pd.read_csv(out / "tables" / "energy.csv")
    assert list(energy.loc[energy["basis"] == "published", "median_j"]) == [1004.5, 1004.5]


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--help"])
    printed = capsys.readouterr().out
    for word in ("s3://", "AWS_ENDPOINT_URL", "index.html", "exit codes", "--format md"):
        assert word in printed
