"""Every number of a report's tables, computed again from trials.csv and the run's own files."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.support import simulated_run
from tests.support.report_tables import Row, read, write_tables
from wattbench.analysis import report
from wattbench.analysis.model.records import Domain
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import tables
from wattbench.analysis.stats.results import CarryOver, CarryOverChange
from wattbench.analysis.storage import source

HOSTS = ("lab-a", "lab-b")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_run.write(
        tmp_path_factory.mktemp("run"), simulated_run.small(blocks=9, steady_s=6.0, idle_every=3)
    )


@pytest.fixture(scope="module")
def study(root: Path) -> report.Study:
    return report.study(source.open_source(root))


@pytest.fixture(scope="module")
def out(study: report.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(study, tmp_path_factory.mktemp("tables"))


def valid(out: Path, host: str, kind: str = "workload") -> dict[str, list[Row]]:
    """Image → rows in the order of blocks, read with the csv module only."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in read(out, "trials"):
        if (row["host"], row["kind"], row["status"]) == (host, kind, "valid"):
            found[row["image"]].append(row)
    return {image: sorted(rows, key=lambda r: int(r["block"])) for image, rows in found.items()}


def column(rows: list[Row], name: str) -> list[float]:
    return [float(r[name]) for r in rows]


@pytest.mark.parametrize(
    ("table", "kind", "value", "unit"),
    [
        ("energy", "workload", "energy_j", "j"),
        ("time", "workload", "duration_s", "s"),
        ("idle_energy", "idle", "energy_j", "j"),
        ("idle_time", "idle", "duration_s", "s"),
    ],
)
def test_centres_and_spreads_are_those_of_the_statistics_module(
    out: Path, table: str, kind: str, value: str, unit: str
) -> None:
    rows = read(out, table)
    assert {(r["basis"], r["image"]) for r in rows} == {
        (h, i) for h in HOSTS for i in valid(out, h, kind)
    }
    for row in rows:
        values = column(valid(out, row["basis"], kind)[row["image"]], value)
        assert int(row["n"]) == len(values)
        assert float(row[f"median_{unit}"]) == pytest.approx(statistics.median(values))
        assert float(row[f"mean_{unit}"]) == pytest.approx(statistics.fmean(values))
        assert float(row[f"sd_{unit}"]) == pytest.approx(statistics.stdev(values), rel=1e-6)


def test_normality_is_shapiro_and_wilks(out: Path) -> None:
    for row in read(out, "normality"):
        values = column(valid(out, row["basis"])[row["image"]], "energy_j")
        assert float(row["shapiro_p"]) == pytest.approx(stats.shapiro(values).pvalue)


def test_omnibus_is_kruskal_and_walliss_formula(out: Path) -> None:
    for row in read(out, "omnibus"):
        samples = [column(r, "energy_j") for r in valid(out, row["basis"]).values()]
        ranks = stats.rankdata(np.concatenate(samples))
        n, sums, at = len(ranks), 0.0, 0
        for sample in samples:
            sums += ranks[at : at + len(sample)].sum() ** 2 / len(sample)
            at += len(sample)
        h = 12 / (n * (n + 1)) * sums - 3 * (n + 1)
        assert float(row["statistic"]) == pytest.approx(h)
        assert float(row["p"]) == pytest.approx(stats.chi2.sf(h, len(samples) - 1))


def test_dunns_p_is_that_of_his_formula(out: Path) -> None:
    for row in read(out, "dunn"):
        by_image = valid(out, row["basis"])
        values = np.concatenate([column(r, "energy_j") for r in by_image.values()])
        names = np.concatenate([[i] * len(r) for i, r in by_image.items()])
        ranks, n = stats.rankdata(values), len(values)
        a, b = names == row["image_a"], names == row["image_b"]
        variance = n * (n + 1) / 12 * (1 / a.sum() + 1 / b.sum())
        z = abs(ranks[a].mean() - ranks[b].mean()) / math.sqrt(variance)
        pairs = math.comb(len(by_image), 2)
        assert float(row["p_bonferroni"]) == pytest.approx(min(1.0, pairs * 2 * stats.norm.sf(z)))


def test_effect_sizes_are_counted_pair_by_pair(out: Path) -> None:
    for row in read(out, "effects"):
        by_image = valid(out, row["basis"])
        a, b = (column(by_image[row[f"image_{k}"]], "energy_j") for k in "ab")
        delta = sum((x > y) - (x < y) for x in a for y in b) / (len(a) * len(b))
        assert float(row["cliffs_delta"]) == pytest.approx(delta)
        assert float(row["mean_diff_j"]) == pytest.approx(statistics.fmean(a) - statistics.fmean(b))


def test_differences_to_the_reference_are_in_joules_percent_and_gigabytes(
    out: Path, root: Path
) -> None:
    document = json.loads((root / "run.json").read_text())
    for row in read(out, "relative"):
        by_image = valid(out, row["basis"])
        own, base = (
            statistics.median(column(by_image[i], "energy_j"))
            for i in (row["image"], row["reference"])
        )
        pulls = document["hosts"][row["basis"]]["pulls"]
        size, base_size = (
            pulls[i]["size_bytes_unpacked"] / 1e9 for i in (row["image"], row["reference"])
        )
        assert float(row["median_diff_j"]) == pytest.approx(own - base)
        assert float(row["median_diff_pct"]) == pytest.approx(100 * (own / base - 1))
        assert float(row["size_diff_gb"]) == pytest.approx(size - base_size)
        assert float(row["size_diff_pct"]) == pytest.approx(100 * (size / base_size - 1))


def log_ratios(out: Path, row: Row) -> np.ndarray:
    by_image = valid(out, row["host"])
    a, b = (column(by_image[row[k]], "energy_j") for k in "ab")
    return np.log(a) - np.log(b)


def test_pairs_are_hodges_and_lehmanns_with_wilcoxons_p_and_holms_correction(out: Path) -> None:
    for host, group in itertools.groupby(read(out, "pairs"), key=lambda r: r["host"]):
        rows = list(group)
        assert len(rows) == 3, host
        p = []
        for row in rows:
            ratios = log_ratios(out, row)
            walsh = [(x + y) / 2 for i, x in enumerate(ratios) for y in ratios[i:]]
            assert int(row["n"]) == len(ratios) == 9
            estimate = 100 * math.expm1(statistics.median(walsh))
            assert float(row["estimate_pct"]) == pytest.approx(estimate)
            p.append(stats.wilcoxon(ratios, method="exact").pvalue)
            assert float(row["p"]) == pytest.approx(p[-1])
            a, b = (column(valid(out, host)[row[k]], "energy_j") for k in "ab")
            delta = sum((x > y) - (x < y) for x in a for y in b) / 81
            assert float(row["cliffs_delta"]) == pytest.approx(delta)
            assert float(row["sd_log_pct"]) == pytest.approx(100 * ratios.std(ddof=1))
        corrected = multipletests(p, method="holm")[1]
        assert column(rows, "p_adjusted") == pytest.approx(list(corrected))


def test_pairs_over_hosts_weigh_each_hosts_mean_log_ratio_by_its_blocks(out: Path) -> None:
    shares = read(out, "across_hosts")
    combined = [r for r in read(out, "across") if r["label"] == "these hosts"]
    assert len(combined) == 3
    for row in combined:
        mine = [s for s in shares if (s["a"], s["b"]) == (row["a"], row["b"])]
        assert {s["host"] for s in mine} == set(HOSTS)
        means = {}
        for share in mine:
            ratios = log_ratios(out, share)
            means[share["host"]] = ratios.mean()
            assert float(share["estimate_pct"]) == pytest.approx(100 * math.expm1(ratios.mean()))
            se = 100 * ratios.std(ddof=1) / math.sqrt(len(ratios))
            assert float(share["se_log_pct"]) == pytest.approx(se, rel=0.01)
            assert float(share["weight_pct"]) == pytest.approx(50.0)
        overall = 100 * math.expm1(statistics.fmean(means.values()))
        assert float(row["estimate_pct"]) == pytest.approx(overall)


def test_the_ranking_is_ordered_by_its_estimates_and_repeats_the_leading_pairs(out: Path) -> None:
    rows = read(out, "ranking")
    estimates = column(rows, "estimate_pct")
    assert estimates == sorted(estimates)
    assert [int(r["rank"]) for r in rows] == [1, 2, 3]
    assert [r["image"] for r in rows if r["is_reference"] == "True"] == ["pytorch"]
    leading = {
        (r["a"], r["b"]): r["estimate_pct"] for r in read(out, "across") if r["leads"] == "True"
    }
    for row in rows:
        if row["image"] != "pytorch":
            assert leading[row["image"], "pytorch"] == row["estimate_pct"]


def test_image_rows_hold_medians_of_the_trials(out: Path) -> None:
    for row in read(out, "images"):
        rows = valid(out, row["host"])[row["image"]]
        assert int(row["valid"]) == len(rows) == 9
        for shown, raw in (("median_j", "energy_j"), ("median_s", "duration_s"),
                           ("median_j_per_image", "j_per_image"),
                           ("median_j_above_idle", "idle_corrected_j")):  # fmt: skip
            assert float(row[shown]) == pytest.approx(statistics.median(column(rows, raw)))
        joules = column(rows, "energy_j")
        cv = 100 * statistics.stdev(joules) / statistics.fmean(joules)
        assert float(row["cv_pct"]) == pytest.approx(cv)


def phases_of_records(root: Path) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in root.glob("hosts/*/trials/*/*/trial.json"):
        record = json.loads(path.read_text())
        row = record["row"]
        if row["kind"] == "workload" and row["status"] == "valid":
            for phase in record["phases"]:
                found[row["host"], row["image"], phase["name"]].append(phase)
    return found


def test_phase_rows_are_medians_over_the_stored_records(out: Path, root: Path) -> None:
    stored = phases_of_records(root)
    rows = read(out, "phases")
    assert {(r["host"], r["image"], r["phase"]) for r in rows} == set(stored)
    for row in rows:
        mine = stored[row["host"], row["image"], row["phase"]]
        assert int(row["n"]) == len(mine)
        for name in ("duration_s", "energy_j", "mean_w", "j_per_image"):
            values = [p[name] for p in mine if p[name] is not None]
            if values:
                assert float(row[name]) == pytest.approx(statistics.median(values))
            else:
                assert row[name] == ""


def test_steady_phases_find_the_joules_an_inference_that_were_simulated(out: Path) -> None:
    """The simulator's own power model, integrated by hand: 1.065 of the power in 0.55 of the time."""
    design = simulated_run.small(blocks=9, steady_s=6.0, idle_every=3)
    for row in read(out, "phases"):
        if row["phase"] != "steady:512":
            continue
        host, image = design.hosts[row["host"]], design.images[row["image"]]
        truth = 1.065 * 0.55 * design.steady_s * host.factor * host.watts * image.energy / 200
        # GPU power is sampled every half second: an edge is uncertain by half of that.
        assert float(row["j_per_image"]) == pytest.approx(truth, rel=0.08)


def test_totals_of_two_images_are_equal_at_their_break_even(out: Path) -> None:
    costs = {(r["host"], r["image"]): r for r in read(out, "startup")}
    for (host, image), row in costs.items():
        rows = valid(out, host)[image]
        fixed = [float(r["energy_j"]) - float(r["steady_j"]) for r in rows]
        each = [float(r["steady_j"]) / float(r["images_inferred"]) for r in rows]
        assert float(row["fixed_j"]) == pytest.approx(statistics.median(fixed))
        assert float(row["marginal_j"]) == pytest.approx(statistics.median(each))
    meetings = read(out, "break_even")
    assert len(meetings) == 4
    for row in meetings:
        own, base = (costs[row["host"], row[k]] for k in ("image", "reference"))

        def total(cost: Row, n: float) -> float:
            return float(cost["fixed_j"]) + n * float(cost["marginal_j"])

        differences = [total(own, n) - total(base, n) for n in (0, 1e9)]
        if row["break_even_images"]:
            n = float(row["break_even_images"])
            assert n > 0
            assert total(own, n) == pytest.approx(total(base, n))
            assert row["outcome"].startswith(
                "more energy at first" if differences[0] > 0 else "less energy at first"
            )
        else:
            word = "less" if differences[0] < 0 else "more"
            assert all((d < 0) == (word == "less") for d in differences)
            assert row["outcome"] == f"{word} than pytorch at every length"


@pytest.mark.parametrize(
    ("own", "base", "images", "outcome"),
    [
        ((30, 1), (10, 3), 10, "more energy at first, less from 10 inferences on"),
        ((10, 3), (30, 1), 10, "less energy at first, more from 10 inferences on"),
        ((10, 1), (10, 1), None, "the same as r at every length"),
        ((10, 1), (10, 2), None, "less than r at every length"),
        ((11, 2), (10, 2), None, "more than r at every length"),
    ],
)
def test_two_cost_lines_meet_where_school_algebra_says(
    own: tuple[int, int], base: tuple[int, int], images: float | None, outcome: str
) -> None:
    rows = [
        {"host": "h", "image": name, "n": 1, "fixed_j": f, "fixed_s": 1.0, "marginal_j": m}
        for name, (f, m) in (("a", own), ("r", base))
    ]
    costs = Table("startup", "", "", tables._frame(rows, tuple(rows[0])))
    sure = tables.Spans((1.0, 1.0), (1.0, 1.0))
    (row,) = tables.break_even(costs, "r", {("h", "a"): sure}).frame.to_dict("records")
    assert row["break_even_images"] == images
    assert row["outcome"] == outcome


@pytest.mark.parametrize(
    "span", [(-1.0, 1.0), (None, None), (0.0, 2.0)], ids=["both signs", "unbounded", "touches zero"]
)
def test_nothing_pays_where_the_interval_allows_both_signs(
    span: tuple[float | None, float | None],
) -> None:
    rows = [
        {"host": "h", "image": name, "n": 9, "fixed_j": f, "fixed_s": 1.0, "marginal_j": m}
        for name, f, m in (("a", 12.0, 1.0), ("r", 10.0, 2.0))
    ]
    costs = Table("startup", "", "", tables._frame(rows, tuple(rows[0])))
    for spans in (tables.Spans(span, (-2.0, -1.0)), tables.Spans((1.0, 2.0), span)):
        (row,) = tables.break_even(costs, "r", {("h", "a"): spans}).frame.to_dict("records")
        assert row["outcome"].startswith("undecided: ")
        assert row["break_even_images"] is None


def test_an_image_is_pareto_optimal_when_nothing_is_smaller_and_thriftier(out: Path) -> None:
    rows = read(out, "sizes")
    points = {r["image"]: (float(r["unpacked_gb"]), float(r["estimate_pct"])) for r in rows}
    for row in rows:
        size, energy = points[row["image"]]
        beaten = any(
            s <= size and e <= energy and (s, e) != (size, energy) for s, e in points.values()
        )
        # Nine blocks on two hosts decide every pair but those of a fraction of a percent.
        close = any(s <= size and abs(e - energy) < 1 for s, e in points.values() if e != energy)
        assert row["pareto"] == ("" if close else str(not beaten))
    assert "True" in {r["pareto"] for r in rows}


def test_pulls_have_bytes_time_and_the_hosts_joules_where_its_meter_ran(out: Path) -> None:
    rows = {(r["host"], r["image"]): r for r in read(out, "pulls")}
    design = simulated_run.small()
    assert set(rows) == {(host, image) for host in design.hosts for image in design.images}
    for (host, name), row in rows.items():
        gigabytes = design.images[name].size_gb
        assert float(row["pulled_mb"]) == pytest.approx(400 * gigabytes)
        assert float(row["mb_per_s"]) == pytest.approx(40)
        if (host, name) == ("lab-b", "nvcr"):
            assert (row["pull_j"], row["source"]) == ("", "")
            assert "ended with 101" in row["remark"]
        else:
            assert float(row["mean_w"]) == pytest.approx(design.hosts[host].idle_w + 20)
            assert (row["source"], row["scope"]) == ("measured", "package")


def test_a_refused_pull_and_a_process_are_distinguished_from_a_pull() -> None:
    assert tables._pull_row({"error": "registry: gone"})["remark"] == "registry: gone"
    there = {"image": "x@y", "bytes": 0, "seconds": 0.2, "energy": {"why": "nothing was pulled"}}
    row = tables._pull_row(there | {"tag_moved_to": "sha256:" + 64 * "b"})
    assert (row["pulled_mb"], row["mb_per_s"], row["pull_j"]) == (0, None, None)
    assert row["remark"].startswith("nothing was pulled; its tag has since moved to sha256:bbb")
    documents = {"h": {"pulls": {"bare": {"image": None, "packages": []}}}}
    data: Any = SimpleNamespace(hosts=("h",), host=documents.get)
    assert tables.pulls(data).frame.empty


def test_latex_holds_the_same_cells_as_the_page(study: report.Study, out: Path) -> None:
    for name, table in study.tables.items():
        text = (out / f"{name}.tex").read_text()
        body = text.split("\\midrule\n")[1].split("    \\bottomrule")[0].splitlines()
        assert len(body) == len(table.frame)
        for line in body:
            assert line.replace(r"\&", "").count(" & ") == len(table.columns) - 1
            assert "nan" not in line.lower()
        assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1


def test_no_cell_of_any_csv_is_a_not_a_number(study: report.Study, out: Path) -> None:
    for name in study.tables:
        for row in read(out, name):
            assert not {"nan", "NaN", "None", "inf", "<NA>"} & set(row.values()), (name, row)


def test_an_interval_without_an_end_is_called_unbounded(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    few = simulated_run.write(
        tmp_path_factory.mktemp("few"), simulated_run.small(blocks=2, steady_s=2.0, failing={})
    )
    table = report.study(source.open_source(few)).tables["pairs"]
    row = dict(zip(table.columns, table.grid("lab-a").rows[0], strict=True))
    assert (row["lower_pct"], row["upper_pct"]) == ("unbounded", "unbounded")
    assert row["verdict"] == "undecided"
    assert "too few blocks" in row["reason"]


@pytest.mark.parametrize(
    ("judged", "p", "said"),
    [
        (CarryOver(reason="too few trials"), None, "too few trials"),
        (CarryOver(f=1.2, p=0.4), 0.4, "not found"),
        (
            CarryOver(f=9.0, p=0.001, found=True, changes=(CarryOverChange("a", -1.5, -0.25),)),
            0.001,
            "a −1.50 → −0.25 %",
        ),
    ],
)
def test_carry_over_stands_among_the_diagnostics_with_what_it_would_change(
    study: report.Study, judged: CarryOver, p: float | None, said: str
) -> None:
    host = study.conclusion.hosts[0]
    assert host.fitness is not None
    fit = dataclasses.replace(host.fitness, carry_over=judged)
    conclusion = dataclasses.replace(
        study.conclusion, hosts=(dataclasses.replace(host, fitness=fit),)
    )
    (row,) = tables.fitness(conclusion).frame.to_dict("records")
    assert row["carry_over"] == said
    assert row["carry_over_p"] == p or (p is None and not row["carry_over_p"])


def test_joules_of_several_gpus_stand_apart_and_sum_to_those_of_the_trial(
    study: report.Study,
) -> None:
    assert tables.gpus(study.data) == []  # one GPU a trial
    split = tuple(
        dataclasses.replace(
            r,
            domains=(
                Domain("gpu0", "nvml", 0.75 * r.row.gpu_j, 1.0, counted=True),
                Domain("gpu1", "nvml", 0.25 * r.row.gpu_j, 1.0, counted=True),
                Domain("gpu2", "nvml", 7.0, 1.0),  # of the host, not of the trial
            ),
        )
        for r in study.data.accepted
        if r.row.status == "valid" and r.row.kind == "workload" and r.row.gpu_j
    )
    assert split
    (table,) = tables.gpus(dataclasses.replace(study.data, accepted=split))
    for row in table.frame.to_dict("records"):
        mine = [
            r.row.gpu_j for r in split if (r.row.host, r.row.image) == (row["host"], row["image"])
        ]
        share = {"gpu0": 0.75, "gpu1": 0.25}[row["gpu"]]
        assert row["n"] == len(mine)
        assert row["median_j"] == pytest.approx(share * statistics.median(mine))
        assert (row["low_j"], row["high_j"]) == (
            pytest.approx(share * min(mine)),
            pytest.approx(share * max(mine)),
        )
