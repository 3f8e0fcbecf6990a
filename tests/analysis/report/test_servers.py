"""Servers under a load of known truth, from raw files to the page."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import report_tables, simulated_run, simulated_server
from tests.support.simulated_server import Image, Server
from wattbench.analysis import report
from wattbench.analysis.model.records import LoadStep, Record
from wattbench.analysis.report import Study
from wattbench.analysis.storage.source import open_source

pytestmark = pytest.mark.slow

Row = dict[str, str]


def design(server: Server, blocks: int = 8) -> simulated_run.Design:
    return simulated_run.small(
        hosts={"lab-a": simulated_run.HOSTS["lab-a"]},
        images={name: simulated_run.Image(size_gb=1.0) for name in server.images},
        blocks=blocks, server=server, failing={}, idle_every=None,
    )  # fmt: skip


def reported(folder: Path, server: Server, blocks: int = 8) -> tuple[Path, Study]:
    """The run and its report, of which the tables are written to ``folder/report``."""
    root = simulated_run.write(folder, design(server, blocks))
    study = report.study(open_source(str(root)))
    report.write_data(study, folder / "report")
    return root, study


def rows(folder: Path, name: str) -> list[Row]:
    with (folder / "report" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def headline(study: Study) -> str:
    return study.conclusion.headline.sentence


def records(root: Path, image: str) -> Iterator[Record]:
    for path in sorted(root.glob(f"hosts/*/trials/*-{image}/*/trial.json")):
        yield Record.from_dict(json.loads(path.read_text()))


def found(study: Study, code: str) -> list[tuple[str, str, str]]:
    return [
        (str(f.severity), f.subject, f.message)
        for f in study.findings
        if f.code == code and f.verdict == "found"
    ]


def sentence(study: Study) -> str:
    return said_in(report_tables.section(study, "energy-latency"))


def said_in(html: str) -> str:
    """The first sentence of the section in a page."""
    section = html[html.index('id="energy-latency"') :]
    text = re.search(r"<p>(.*?)</p>", section, re.DOTALL)
    assert text is not None
    return text[1].replace("\u202f", " ").replace("\xa0", " ")


SOUND = Server({"a": Image(2.0, 0.02), "b": Image(1.76, 0.02)})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Study]:
    folder = tmp_path_factory.mktemp("sound")
    return folder, *reported(folder, SOUND)


def truth(root: Path, image: str) -> Iterator[tuple[LoadStep, float]]:
    """Each step of each trial with its true joules per request, from the powers that were simulated."""
    for path in sorted(root.glob(f"hosts/*/trials/*-{image}/*/trial.json")):
        true_j = json.loads((path.parent / "truth.json").read_text())
        for step in Record.from_dict(json.loads(path.read_text())).steps:
            yield step, true_j[step.name]


@pytest.mark.parametrize("image", ["a", "b"])
def test_joules_per_request_are_true_within_the_stated_uncertainty(
    sound: tuple[Path, Path, Study], image: str
) -> None:
    _, root, _ = sound
    within = 0
    steps = list(truth(root, image))
    assert len(steps) == 16
    for step, true_j in steps:
        joules = step.joules_per(step.succeeded)
        assert joules is not None
        assert step.energy_uncertainty_j is not None
        assert joules == pytest.approx(true_j, rel=0.02)
        within += abs(joules - true_j) <= step.energy_uncertainty_j / step.succeeded
    assert within >= 15  # of 16: half-widths cover at least 95 %


def test_the_endpoint_is_joules_per_request_in_the_steady_steps(
    sound: tuple[Path, Path, Study],
) -> None:
    folder, _, study = sound
    assert re.match(r"b uses the least energy: 1[12]\.\d\u202f% less than a \(", headline(study))
    summary = json.loads((folder / "report/summary.json").read_text())
    assert summary["conditions"].startswith("Joules per request in the steady steps, one host, ")
    for row in rows(folder, "trials.csv"):
        assert (row["unit"], float(row["units"])) == ("request", 560.0)
        assert float(row["j_per_unit"]) == pytest.approx(float(row["steady_j"]) / 560)
        assert float(row["energy_j"]) > float(row["steady_j"])
    medians = {
        r["image"]: float(r["median_j_per_unit"]) for r in rows(folder, "tables/medians.csv")
    }
    assert medians == pytest.approx({"a": 2.0, "b": 1.76}, rel=0.01)


def test_the_page_says_who_needs_less_at_the_last_step_within_the_slo(
    sound: tuple[Path, Path, Study],
) -> None:
    folder, _, study = sound
    said = re.fullmatch(
        r"At 20 requests/s within p99 200 ms and 0\.1 % errors, b needs (\d+\.\d) % "
        r"\((\d+\.\d) to (\d+\.\d) %\) less per request than a\.",
        sentence(study),
    )
    assert said is not None, sentence(study)
    estimate, low, high = map(float, said.groups())
    assert low < 12.0 < high
    assert estimate == pytest.approx(12.0, abs=1.0)
    pairs = {(r["step"], r["compared"]): r for r in rows(folder, "tables/step_pairs.csv")}
    pair = pairs["r20", "energy per request"]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("b", "a", "less")
    assert -float(pair["estimate_pct"]) == pytest.approx(estimate, abs=0.06)


def test_every_step_of_every_image_is_a_row_with_medians_and_intervals(
    sound: tuple[Path, Path, Study], tmp_path: Path
) -> None:
    folder, root, study = sound
    table = {(r["image"], r["step"]): r for r in rows(folder, "tables/steps.csv")}
    assert set(table) == {(i, s) for i in "ab" for s in ("c4", "r20")}
    for (image, _), row in table.items():
        low, middle, high = (float(row[f"j_per_request{end}"]) for end in ("_lower", "", "_upper"))
        assert low <= middle <= high
        assert middle == pytest.approx({"a": 2.0, "b": 1.76}[image], rel=0.01)
        assert (int(row["n"]), float(row["error_pct"])) == (8, 0.0)
        assert row["meets_slo"] == "True"
    assert float(table["a", "c4"]["throughput_per_s"]) == pytest.approx(4 / 0.02, rel=0.03)
    assert float(table["a", "c4"]["latency_p50_ms"]) == pytest.approx(20.0, rel=0.02)
    made = report.make(open_source(str(root)), tmp_path)
    page = made.page.read_text(encoding="utf-8")
    assert said_in(page) == sentence(study)
    assert "figures/energy-latency-lab-a.svg" in page
    assert '<a href="#energy-latency">Energy against latency</a>' in page


def test_a_program_has_no_such_section(tmp_path: Path) -> None:
    plain = simulated_run.small(
        hosts={"lab-a": simulated_run.HOSTS["lab-a"]}, failing={}, idle_every=None
    )
    study = report.study(open_source(str(simulated_run.write(tmp_path, plain))))
    assert not {"steps", "step_pairs"} & set(study.tables)


def test_planted_faults_are_named_and_take_out_what_they_spoil(tmp_path: Path) -> None:
    """A slow server of equal energy, wrong answers, failed requests, and a stall of 2 s."""
    planted = Server(
        {
            "a": Image(2.0, 0.02),
            "slow": Image(2.0, 0.035),
            "wrong": Image(1.5, 0.02, wrong=(7, 300)),
            "errors": Image(2.0, 0.02, fails=(3, 4)),
            "stalls": Image(2.0, 0.02, stalls_s=2.0),
        }
    )
    root, study = reported(tmp_path, planted, blocks=10)
    # wrong answers: error, and the cheap server wins nothing
    unequal = found(study, "unequal-work")
    assert len({subject for _, subject, _ in unequal}) == 10
    assert all("-wrong/1" in subject for _, subject, _ in unequal)
    assert unequal[0][2].startswith(
        "step c4: the answers to 2 of 400 requests differ from those of most trials, request 7 first"
    )
    invalid = {r["image"] for r in rows(tmp_path, "trials.csv") if r["status"] == "invalid"}
    assert invalid == {"wrong"}
    # errors above the SLO
    failed = found(study, "requests-failed")
    assert {severity for severity, *_ in failed} == {"warning"}
    assert all("errors" in subject for _, subject, _ in failed)
    assert "step c4: 0.5 % of 400 requests failed (status 2), 0.1 % are allowed" in failed[0][2]
    steps = {(r["image"], r["step"]): r for r in rows(tmp_path, "tables/steps.csv")}
    assert steps["errors", "c4"]["meets_slo"] == "False"
    # the stall is in the percentiles, since latency counts from the intended time
    stalled, usual = steps["stalls", "r20"], steps["a", "r20"]
    assert 1500 < float(stalled["latency_p99_ms"]) < 2100
    assert float(stalled["latency_max_ms"]) == pytest.approx(2020, abs=100)
    assert float(usual["latency_p99_ms"]) < 200
    assert stalled["meets_slo"] == "False"
    assert float(stalled["latency_p50_ms"]) < 100
    # equal energy, slower: shown by latency alone
    pairs = {
        (r["a"], r["b"], r["step"], r["compared"]): r
        for r in rows(tmp_path, "tables/step_pairs.csv")
    }
    assert pairs["slow", "a", "c4", "latency p99"]["verdict"] == "more"
    assert float(pairs["slow", "a", "c4", "latency p99"]["estimate_pct"]) == pytest.approx(
        75, abs=5
    )
    assert pairs["slow", "a", "c4", "energy per request"]["verdict"] in ("undecided", "equivalent")
    assert sentence(study).endswith("). Not within it: errors and stalls.")
    assert not found(study, "load-saturated")
    assert next(records(root, "slow")).row.status == "valid"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"cpu_share": 0.97}, "it used 97 % of its CPU time"),
        ({"late_s": 0.5}, "1 % of the requests were sent 500.0 ms or more late"),
    ],
)
def test_a_step_that_a_starved_generator_spoils_counts_for_no_image(
    tmp_path: Path, fault: dict[str, float], why: str
) -> None:
    starved = Server({"a": Image(2.0, 0.02), "b": replace(Image(1.76, 0.02), **fault)})  # type: ignore[arg-type]
    _, study = reported(tmp_path, starved)
    saturated = found(study, "load-saturated")
    assert len(saturated) == 8
    assert {severity for severity, *_ in saturated} == {"warning"}
    assert f"step r20: the load generator could not keep up: {why}" in saturated[0][2]
    steps = {(r["image"], r["step"]) for r in rows(tmp_path, "tables/steps.csv")}
    assert steps == {("a", "c4"), ("b", "c4"), ("a", "r20")}
    trials = rows(tmp_path, "trials.csv")
    assert {float(r["units"]) for r in trials} == {400.0}
    assert {r["status"] for r in trials} == {"valid"}
    assert headline(study).startswith("b uses the least energy: ")
    assert sentence(study).startswith("At 4 requests at a time within p99 200 ms")


def test_a_generator_that_keeps_up_with_no_step_leaves_no_valid_trial(tmp_path: Path) -> None:
    only = (simulated_server.STEPS[1],)
    starved = Server({n: Image(2.0, 0.02, cpu_share=0.95) for n in ("a", "b")}, steps=only)
    _, study = reported(tmp_path, starved)
    assert {severity for severity, *_ in found(study, "load-saturated")} == {"error"}
    assert {r["status"] for r in rows(tmp_path, "trials.csv")} == {"invalid"}
    assert headline(study).startswith("No verdict")


def test_a_server_that_dies_in_a_step_fails_its_trial_and_leaves_the_others(tmp_path: Path) -> None:
    dying = Server(
        {"a": Image(2.0, 0.02), "b": Image(1.9, 0.02), "dies": Image(1.0, 0.02, dies=True)}
    )
    root, study = reported(tmp_path, dying)
    status = {(r["image"], r["status"]) for r in rows(tmp_path, "trials.csv")}
    assert status == {("a", "valid"), ("b", "valid"), ("dies", "failed")}
    record = next(records(root, "dies"))
    assert record.work.errors == ("the server ended in step r20",)
    last = record.steps[-1]
    assert (last.name, last.energy_j) == ("r20", None)
    assert 0 < (last.sent or 0) < 160
    assert headline(study).startswith("b uses 5")


def test_a_broken_line_of_requests_is_a_fault_of_that_attempt_alone(tmp_path: Path) -> None:
    _, study = reported(tmp_path, replace(SOUND, broken=(1, 141)))
    trials = rows(tmp_path, "trials.csv")
    assert [r["status"] for r in trials].count("valid") == len(trials) - 1
    assert trials[0]["reason"].startswith("file-unread: requests.csv: line 141: has 2 cells")
    assert headline(study).startswith("b uses the least energy: ")


def test_joules_per_token_are_compared_where_tokens_are_counted(tmp_path: Path) -> None:
    llm = Server(
        {"a": Image(32.0, 0.3), "b": Image(28.16, 0.3)},
        steps=(simulated_server.Step("c2", 60, concurrency=2),), tokens=64, slo=None,
    )  # fmt: skip
    _, study = reported(tmp_path, llm)
    assert headline(study).startswith("b uses the least energy: ")
    table = {r["image"]: r for r in rows(tmp_path, "tables/steps.csv")}
    assert float(table["a"]["j_per_token"]) == pytest.approx(0.5, rel=0.01)
    assert float(table["b"]["tokens_per_s"]) == pytest.approx(64 * 2 / 0.3, rel=0.05)
    assert sentence(study).startswith("At 2 requests at a time, b needs 12")
    assert "less per token than a." in sentence(study)
    assert {r["unit"] for r in rows(tmp_path, "trials.csv")} == {"token"}
