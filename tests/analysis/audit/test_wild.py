"""Habits of strangers' tools and folders: each small campaign is read right, or its fault has subject, file and line."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from scikit_posthocs import posthoc_dunn
from scipy import stats

from tests.support.study import PUBLISHED
from wattbench.analysis.audit import believed, mapping, run, treatments
from wattbench.analysis.audit import page as run_page
from wattbench.analysis.audit.importers.reduce import reduce_one
from wattbench.analysis.audit.run import Audit
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.findings import Finding
from wattbench.analysis.trends.compare import Options, compare, is_series
from wattbench.analysis.trends.headline import sentence
from wattbench.analysis.trends.read import StoredRun

UNIT_J = 2.0**-14


def log(
    start_s: float,
    watts: float = 30.0,
    seconds: float = 10.0,
    *,
    step_s: float = 0.2,
    closing: bool = True,
    package: str = "PACKAGE_ENERGY (J)",
    dram_w: float | None = None,
    gpu_w: float | None = None,
    gpu_pct: float = 90.0,
    usage: Callable[[int], float] = lambda row: 30.0 + row % 5,
    extra: dict[str, Callable[[int], object]] | None = None,
    begin_j: float = 1000.0,
    span_j: float = math.inf,
) -> str:
    """An EnergiBridge log of constant power: the second row follows at once, the last closes the window."""
    rows = round(seconds / step_s) + 2
    columns: dict[str, Callable[[int], object]] = {"CPU_USAGE_0": usage, "CPU_USAGE_1": usage}
    since = [0.0, *(step_s * max(row - 1, 0) for row in range(1, rows))]

    def counter(power_w: float, start_j: float) -> Callable[[int], float]:
        return lambda row: (start_j + power_w * since[row]) // UNIT_J * UNIT_J % span_j

    columns[package] = counter(watts, begin_j)
    if dram_w is not None:
        columns["DRAM_ENERGY (J)"] = counter(dram_w, 50.0)
    if gpu_w is not None:
        columns["GPU0_POWER (mWatts)"] = lambda row: round(1000 * gpu_w + row % 3)
        columns["GPU0_USAGE"] = lambda row: gpu_pct if row > 2 else 0
    columns |= extra or {}
    lines = [",".join(["Delta", "Time", *sorted(columns)])]
    for row in range(rows):
        delta = 0 if row == 0 else 3 if closing and row == rows - 1 else round(1000 * step_s)
        time_ms = round(1000 * (start_s + since[row]))
        lines.append(
            ",".join(map(str, [delta, time_ms, *(columns[c](row) for c in sorted(columns))]))
        )
    return "\n".join(lines) + "\n"


def write(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def campaign(
    treatments: Sequence[str] = ("a", "b"), runs: int = 5, name: str = "{0}/{1}.csv", **more: object
) -> dict[str, str]:
    """Logs of treatments in turn, of 30 W and a little more for each next one, with run-to-run noise."""
    draw = random.Random(5)
    return {
        name.format(treatment, number): log(
            1_760_000_000 + 100 * (number * len(treatments) + place),
            (30.0 + place) * draw.gauss(1, 0.004),
            **more,  # type: ignore[arg-type]
        )
        for number in range(runs)
        for place, treatment in enumerate(treatments)
    }


def audited(root: Path, **more: object) -> Audit:
    return run.audit(root, mapping.Mapping(**more))  # type: ignore[arg-type]


def status(result: Audit) -> Counter[tuple[str, str]]:
    return Counter((r.row.image, r.row.status) for r in result.trials)


def found(result: Audit, code: str) -> list[Finding]:
    return [f for f in result.findings if f.code == code and f.verdict == "found"]


def places(findings: Sequence[Finding]) -> list[tuple[str, str, int]]:
    return [(f.subject, f.evidence["file"], f.evidence["line"]) for f in findings]


# ---------------------------------------------------------------------------- what a treatment is


@pytest.mark.parametrize(
    ("name", "treatments", "said"),
    [
        ("{0}/{1}.csv", ("a", "b"), None),
        ("out/{0}/test_20260101/m_{1}.csv", ("a", "b"), "folders"),
        ("{0}/deep/same/m_{1}.csv", ("a", "b"), "folders above"),
        ("data/{0}_run_{1}.csv", ("a", "b"), "names of the files"),
        ("data/run_{1}_{0}.csv", ("a", "b"), "names of the files"),
        ("{0}/run_{1}/energy.csv", ("a", "b"), "folders"),
    ],
)
def test_the_treatment_is_named_by_a_folder_at_any_depth_or_by_the_file(
    tmp_path, name, treatments, said
):
    result = audited(write(tmp_path, campaign(treatments, name=name)))
    assert status(result) == {("a", "valid"): 5, ("b", "valid"): 5}
    assert {r.row.run for r in result.trials} == set(range(5))
    if said is None:
        assert result.campaign.inferred == ()
    else:
        assert said in result.campaign.inferred[0]
        assert "--mapping" in result.campaign.inferred[0]


def test_numbers_that_name_a_treatment_are_no_runs_and_glued_ones_are():
    runs = {
        "a/run_3_fp16.csv": 3, "a/0_fp16.csv": 0, "a/run0PyTorchFP16.csv": 0, "a/test_2_run_5.csv": 5,
        "a/energy12.csv": 12, "a/ubuntu-22.04_3.csv": 3, "run_7/energy.csv": 7, "a/b.csv": None,
    }  # fmt: skip
    assert {path: treatments.run_of(path) for path in runs} == runs


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("run{i}{n}.csv", ("FP16", "FP32")), ("{n}Run{i}.csv", ("FP16", "FP32")),
     ("{i}_{n}.csv", ("fp16", "fp32")), ("out/{n}{i}.csv", ("torch", "tf"))],
)  # fmt: skip
def test_a_treatment_glued_to_its_run_number_is_inferred(pattern, names):
    paths = [pattern.format(n=n, i=i) for n in names for i in range(1, 6)]
    inferred = treatments.infer(paths, "campaign")
    assert Counter(label.image for label in inferred.of.values()) == dict.fromkeys(names, 5)
    assert Counter(map(treatments.run_of, paths)) == dict.fromkeys(range(1, 6), 2)


def test_names_that_say_nothing_are_said_to_share_run_numbers(tmp_path):
    words = ("apple", "pear", "fig", "kiwi", "plum", "lime")
    texts = {
        f"data/{i // 2}-{word}.csv": log(1_760_000_000 + 100 * i) for i, word in enumerate(words)
    }
    said = audited(write(tmp_path, texts)).campaign.inferred
    assert any("have one run number with another" in s and "raw: {image: …}" in s for s in said)


def test_texts_in_utf16_are_read_as_those_in_utf8(tmp_path):
    """``>`` of Windows PowerShell writes UTF-16."""
    texts = campaign(runs=4)
    texts |= {f"b/{i}.txt": REFUSALS["docker"] + "\n" for i in range(4)}
    results = []
    for encoding in ("utf-8", "utf-16"):
        for name, text in texts.items():
            (tmp_path / encoding / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / encoding / name).write_bytes(text.encode(encoding))
        results.append(audited(tmp_path / encoding))
    plain, wide = results
    assert status(wide) == status(plain) == {("a", "valid"): 4, ("b", "failed"): 4}
    assert [r.row.energy_j for r in wide.trials] == [r.row.energy_j for r in plain.trials]
    assert places(found(wide, "trial-failed")) == places(found(plain, "trial-failed"))


def test_what_differs_in_a_folder_above_is_not_pooled(tmp_path):
    result = audited(write(tmp_path, campaign(("laptop/x", "desktop/x"))))
    assert status(result) == {("laptop", "valid"): 5, ("desktop", "valid"): 5}


def test_a_mapping_overrides_what_is_inferred(tmp_path):
    write(tmp_path, campaign(name="data/{0}_run_{1}.csv"))
    raw = {"glob": "data/*.csv", "image": "^(data)/", "run": "run_(\\d+)"}
    result = audited(tmp_path, raw=raw)
    assert status(result) == {("data", "valid"): 10}
    assert result.campaign.inferred == ()


def test_copies_are_named_and_count_once(tmp_path):
    texts = campaign(name="results_of_us/{0}/{1}.csv")
    copies = {p.replace("results_of_us", "backup"): t for p, t in texts.items()}
    result = audited(write(tmp_path, texts | copies))
    assert status(result) == {("a", "valid"): 5, ("b", "valid"): 5}
    (copied,) = [f for f in found(result, "file-unread") if "copies" in f.message]
    assert copied.evidence["copies"] == {p: p.replace("backup", "results_of_us") for p in copies}
    assert not found(result, "clock-skew")


def test_a_table_that_stands_in_another_one_is_named_and_counts_once(tmp_path):
    rows = [f"r{i},DONE,{m},{10 + i},{300 + i}.5" for i in range(6) for m in ("x", "y")]
    text = "\n".join(["__run_id,__done,model,execution_time,energy_J", *rows]) + "\n"
    write(tmp_path, {"experiment/run_table.csv": text, "analysis/run_table.csv": text})
    result = audited(tmp_path)
    assert len(result.campaign.derived) == 12
    (copied,) = [f for f in found(result, "file-unread") if "copy" in f.message]
    assert copied.evidence["copy_of"] == "analysis/run_table.csv"


def test_factor_columns_of_a_long_table_are_treatments_and_a_column_of_many_values_is_none(
    tmp_path,
):
    draw = random.Random(1)
    rows = [
        f"{i},{model},{draw.randrange(10**6)},{draw.gauss(300, 3):.3f},{draw.gauss(10, 0.1):.3f}"
        for i in range(300)
        for model in ("bert", "gpt")
    ]
    header = "run,model,prompt_length,energy (J),time (s)"
    result = audited(write(tmp_path, {"long.csv": "\n".join([header, *rows]) + "\n"}))
    assert Counter(d.image for d in result.campaign.derived) == {"bert": 300, "gpt": 300}


def test_a_covariate_of_a_run_table_is_said_to_be_none_of_the_treatment(tmp_path):
    draw = random.Random(1)
    rows = [
        f"run_{i},DONE,{('x', 'y')[i % 2]},{draw.randrange(400)},{draw.gauss(10, 0.1):.3f},"
        f"{draw.gauss(300, 3):.3f}"
        for i in range(1080)
    ]
    header = "__run_id,__done,model,prompt_tokens,time,energy_J"
    write(tmp_path, {"run_table.csv": "\n".join([header, *rows]) + "\n"})
    result = audited(tmp_path)
    assert {d.image for d in result.campaign.derived} == {"x", "y"}
    assert "'prompt_tokens'" in result.campaign.inferred[0]
    assert "covariate" in result.campaign.inferred[0]


def table(header: str, *rows: str) -> dict[str, str]:
    return {"t.csv": "\n".join([header, *rows]) + "\n"}


def test_a_table_as_a_spreadsheet_of_another_locale_saves_it_is_read(tmp_path):
    rows = (f"{i};{m};{300 + i},25;1.{i}00,5" for i in range(6) for m in ("x", "y"))
    result = audited(write(tmp_path, table("Lauf;Modell;Energy (J);Duration (ms)", *rows)))
    assert Counter(d.image for d in result.campaign.derived) == {"x": 6, "y": 6}
    assert result.campaign.derived[2].energy_j == pytest.approx(301.25)
    assert result.campaign.derived[2].duration_s == pytest.approx(1.1005)
    assert "'Lauf' numbers the runs" in result.campaign.inferred[1]


@pytest.mark.parametrize(
    ("column", "cell", "seconds"),
    [("time (ms)", "1500", 1.5), ("runtime_min", "2", 120.0), ("Execution Time [s]", "3", 3.0),
     ("elapsed", "4", 4.0), ("time", "1760000000", None), ("start_time", "9", None)],
)  # fmt: skip
def test_a_run_s_length_is_read_in_its_unit_and_a_moment_is_none(tmp_path, column, cell, seconds):
    rows = (f"2026-01-05T12:00:0{i},x,300.{i},{cell}" for i in range(4))
    result = audited(write(tmp_path, table(f"timestamp,model,energy_J,{column}", *rows)))
    assert [d.duration_s for d in result.campaign.derived] == [seconds] * 4


@pytest.mark.parametrize(
    ("header", "cells", "joules", "left_out"),
    [
        ("CPU Energy (J),GPU Energy (J),Total Energy (J)", "100,900,1000", 1000.0, 2),
        ("cpu_energy_j,gpu_energy_j,ram_energy_j", "100,900,50", 1050.0, 0),
        ("energy_per_token_j,energy_j", "0.5,300", 300.0, 1),
        ("energy [kWh]", "0.0001", 360.0, 0),
        ("energy (MJ)", "0.5", 500_000.0, 0),
    ],
)
def test_of_several_columns_of_joules_the_total_counts_or_all_parts(
    tmp_path, header, cells, joules, left_out
):
    rows = (f"{i},x,{cells}" for i in range(4))
    result = audited(write(tmp_path, table(f"run,model,{header}", *rows)))
    assert [d.energy_j for d in result.campaign.derived] == pytest.approx([joules] * 4)
    unread = [f for f in found(result, "file-unread") if "not counted" in f.message]
    assert sum(len(f.evidence["columns"]) for f in unread) == left_out


def test_a_treatment_named_after_the_first_result_is_not_pooled(tmp_path):
    rows = (f"p{i},DONE,{40 + i % 7}.5,{'xy'[i % 2]},{300 + i % 5},10.0" for i in range(120))
    header = "__run_id,__done,temperature,model,energy_J,time"
    write(tmp_path, {"run_table.csv": "\n".join([header, *rows]) + "\n"})
    assert {d.image for d in audited(tmp_path).campaign.derived} == {"x", "y"}


def test_tables_without_any_row_of_joules_are_nothing_to_audit(tmp_path):
    write(tmp_path, table("run,model,energy (J)", "1,x,none", "2,x,-"))
    with pytest.raises(InputError, match=r"t\.csv: line 2 and 1 more: no joules"):
        audited(tmp_path)


def test_many_treatments_are_counted_and_not_compared_pair_by_pair(tmp_path):
    rows = [f"{i},t{i % 60},{300 + i % 7}.25,10.{i % 9}" for i in range(600)]
    header = "run,treatment,energy (J),time (s)"
    result = audited(write(tmp_path, {"t.csv": "\n".join([header, *rows]) + "\n"}))
    (answer,) = {a.sentence for a in result.answers}
    assert answer.startswith("No verdict: 60 treatments")
    assert len(result.tables.tables["energy"]) == 120
    assert result.tables.tables["dunn"].empty


def test_run_numbers_that_count_over_all_treatments_leave_no_holes(tmp_path):
    texts = {
        f"{'ab'[number % 3 == 0]}/run_{number}.csv": log(1_760_000_000 + 100 * number, 30.0)
        for number in range(12)
    }
    missing = found(audited(write(tmp_path, texts)), "trial-missing")
    assert not any("missing_runs" in f.evidence for f in missing)
    texts = campaign()
    del texts["a/2.csv"]
    missing = found(audited(write(tmp_path / "h", texts)), "trial-missing")
    (hole,) = [f for f in missing if "missing_runs" in f.evidence]
    assert (hole.subject, hole.evidence["missing_runs"]) == ("image a", [2])


# --------------------------------------------------------------------------------- habits of tools


def test_logs_without_a_closing_sample_are_a_habit_together_and_suspicious_alone(tmp_path):
    result = audited(write(tmp_path / "all", campaign(closing=False)))
    assert status(result) == {("a", "valid"): 5, ("b", "valid"): 5}
    (word,) = [f for f in found(result, "sampling-coarse") if "closing sample" in f.message]
    assert (word.subject, word.evidence["file"], word.evidence["line"]) == (
        "campaign",
        "a/0.csv",
        53,
    )
    texts = campaign() | {"a/2.csv": log(1_760_000_400, closing=False)}
    result = audited(write(tmp_path / "one", texts))
    assert places(found(result, "trial-failed")) == [("trial a/2.csv", "a/2.csv", 1)]
    assert status(result)["a", "failed"] == 1


def test_runs_of_varying_length_end_by_themselves_and_one_short_among_equal_ones_does_not(tmp_path):
    draw = random.Random(2)
    texts = {
        f"llm/{i}.csv": log(
            1_760_000_000 + 100 * i, seconds=draw.choice([3.0, 5.0, 8.0, 12.0, 18.0])
        )
        for i in range(12)
    }
    assert status(audited(write(tmp_path / "vary", texts))) == {("llm", "valid"): 12}
    texts = campaign(("a",), runs=8) | {"a/3.csv": log(1_760_000_300, seconds=2.0)}
    result = audited(write(tmp_path / "short", texts))
    assert places(found(result, "trial-failed")) == [("trial a/3.csv", "a/3.csv", 1)]


def test_a_first_usage_of_exactly_all_or_nothing_is_no_reading_and_a_dead_sensor_neither(tmp_path):
    first = campaign(usage=lambda row: 100.0 if row == 0 else 35.0 + row % 3)
    assert not found(audited(write(tmp_path / "first", first)), "host-busy")
    dead = campaign(("a_idle", "a"), usage=lambda row: 100.0)
    assert not found(audited(write(tmp_path / "dead", dead)), "host-busy")
    busy = campaign(("a",)) | {
        "a/1.csv": log(1_760_000_100, usage=lambda row: 87.5 if row == 0 else 90.0 + row % 3)
    }
    result = audited(write(tmp_path / "busy", busy))
    assert places(found(result, "host-busy")) == [("trial a/1.csv", "a/1.csv", 2)]


def test_a_per_core_counter_that_jumps_voids_no_sound_package(tmp_path):
    jump = {"CORE0_ENERGY (J)": lambda row: 500.0 + (row % 2) * 7_000 + row}
    texts = campaign(package="CPU_ENERGY (J)", extra=jump)
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 5, ("b", "valid"): 5}
    assert result.trials[0].row.energy_j == pytest.approx(300.0, rel=0.02)
    assert not found(result, "counter-wrap")
    (note,) = [f for f in found(result, "file-unread") if "CORE0_ENERGY (J)" in f.message]
    assert (note.severity, note.evidence["files"]) == ("info", 10)


def test_a_last_line_without_newline_counts_if_it_is_whole(tmp_path):
    texts = campaign(("a",))
    texts["a/1.csv"] = texts["a/1.csv"].rstrip("\n")
    texts["a/2.csv"] = texts["a/2.csv"].rstrip("\n")[:-4]
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 4, ("a", "failed"): 1}
    (cut,) = found(result, "trial-failed")
    assert cut.subject == "trial a/2.csv"


@pytest.mark.parametrize("way", ["header", "bare", "glued", "more-columns"])
def test_runs_appended_to_one_file_count_apart_with_their_own_lines(tmp_path, way):
    texts = {}
    for i in range(3):
        first = log(1_760_000_000 + 100 * i, 30.0 + i)
        second = log(
            1_760_000_050 + 100 * i, 40.0 + i, 8.0, dram_w=5.0 if way == "more-columns" else None
        )
        if way == "bare":
            second = second.partition("\n")[2]
        texts[f"a/run_{i}.csv"] = (first.rstrip("\n") if way == "glued" else first) + second
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 6}
    rows = {r.row.raw: r.row for r in result.trials}
    line = {"header": 54, "bare": 54, "glued": 53, "more-columns": 54}[way]
    assert rows["a/run_1.csv"].package_j == pytest.approx(310.0, rel=1e-3)
    assert rows[f"a/run_1.csv:{line}"].package_j == pytest.approx(41 * 8.0, rel=1e-3)
    assert rows[f"a/run_1.csv:{line}"].raw_place() == {"file": "a/run_1.csv", "line": line}
    assert len({(r.image, r.run) for r in rows.values()}) == 6
    (named,) = [f for f in result.findings if "one after the other" in f.message]
    assert (named.evidence["file"], named.evidence["line"]) == ("a/run_0.csv", line)
    assert "3 raw files hold 6 runs" in named.message


def test_a_fault_in_an_appended_run_has_the_line_of_the_file(tmp_path):
    rows = log(1_760_000_050).splitlines()
    rows[20] = rows[20].replace(rows[20].split(",")[1], "x", 1)
    texts = {f"a/run_{i}.csv": log(1_760_000_000 + 100 * i) for i in range(4)}
    texts["a/run_0.csv"] += "\n".join(rows) + "\n"
    result = audited(write(tmp_path, texts))
    (record,) = [r for r in result.trials if r.row.raw == "a/run_0.csv:54"]
    assert [n.line for n in record.notes if n.kind == "bad-row"] == [54 + 20]


def test_a_time_that_goes_back_without_a_first_sample_is_refused_not_split(tmp_path):
    rows = log(1_760_000_000).splitlines()
    tail = log(1_760_000_050).splitlines()[10:]
    texts = {f"a/run_{i}.csv": log(1_760_000_200 + 100 * i) for i in range(4)}
    texts["a/run_0.csv"] = "\n".join([rows[0], *tail, *rows[10:]]) + "\n"
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 3, ("a", "failed"): 1}
    (failed,) = found(result, "trial-failed")
    assert "goes back" in failed.message
    assert failed.evidence["file"] == "a/run_0.csv"
    assert failed.evidence["line"] == 2 + len(tail)


@pytest.mark.parametrize("change", ["comma", "tab", "seconds", "micro", "kwh", "gaps"])
def test_other_separators_units_and_gaps_give_the_same_joules(change):
    text = log(1_760_000_000, 31.0)
    plain = reduce_one("plain", text.encode())
    lines = [line.split(",") for line in text.splitlines()]
    time, package = lines[0].index("Time"), lines[0].index("PACKAGE_ENERGY (J)")
    if change == "kwh":
        lines[0][package] = "PACKAGE_ENERGY (kWh)"
    for row in lines[1:]:
        if change in ("seconds", "micro"):
            factor = 1e-3 if change == "seconds" else 1e3
            row[0], row[time] = (f"{factor * float(cell):.6f}" for cell in (row[0], row[time]))
        elif change == "kwh":
            row[package] = repr(float(row[package]) / 3.6e6)
    if change == "gaps":
        lines[20][package] = lines[31][package] = "NaN"
    separator = {"comma": ";", "tab": "\t"}.get(change, ",")
    changed = "\n".join(separator.join(row) for row in lines) + "\n"
    if change == "comma":
        changed = changed.replace(".", ",")
    other = reduce_one("other", changed.encode())
    assert other.fatal is None
    assert (other.rows, other.duration_s) == (plain.rows, plain.duration_s)
    joules = [one.energy("package").joules for one in (other, plain)]  # type: ignore[union-attr]
    assert joules[0] == pytest.approx(joules[1], rel=1e-9)


def test_package_power_that_no_cpu_has_is_an_error_and_a_small_idle_one_is_not(tmp_path):
    low = audited(
        write(
            tmp_path / "low", {f"a/{i}.csv": log(1_760_000_000 + 100 * i, 0.27) for i in range(4)}
        )
    )
    (word,) = found(low, "power-implausible")
    assert "0.27 W at 32 % CPU usage" in word.message
    assert (word.subject, word.evidence["file"], word.evidence["line"]) == ("image a", "a/0.csv", 1)
    high = audited(
        write(
            tmp_path / "high",
            {f"a/{i}.csv": log(1_760_000_000 + 100 * i, 19_000.0) for i in range(4)},
        )
    )
    assert found(high, "power-implausible")
    idle = {
        f"a/{i}.csv": log(1_760_000_000 + 100 * i, 0.6, usage=lambda r: 1.0 + r % 2)
        for i in range(4)
    }
    assert not found(audited(write(tmp_path / "idle", idle)), "power-implausible")


@pytest.mark.parametrize("has_usage", [True, False])
def test_joules_of_a_misread_unit_get_no_verdict_and_are_no_usable_runs(tmp_path, has_usage):
    texts = {
        f"{name}/{i}.csv": log(1_760_000_000 + 100 * i + 50 * place, watts)
        for i in range(4)
        for place, (name, watts) in enumerate([("a", 0.27), ("b", 0.31)])
    }
    if not has_usage:
        texts = {p: text.replace("CPU_USAGE", "CPU_FREQUENCY") for p, text in texts.items()}
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "invalid"): 4, ("b", "invalid"): 4}
    assert {f.subject for f in found(result, "power-implausible")} == {"image a", "image b"}
    assert {a.basis for a in result.answers} >= {"imported", "repaired"}
    for answer in result.answers:
        assert re.match(r"No verdict: a: the package's mean power is 0\.27 W", answer.sentence)
    assert "0 of 8 runs" in believed.sentence(result)


def test_beside_a_misread_package_the_gpu_is_compared_and_the_sentence_says_so(tmp_path):
    draw = random.Random(3)
    texts = {
        f"{name}/{i}.csv": log(
            1_760_000_000 + 100 * (2 * i + place), 19_000.0, gpu_w=gpu_w * draw.gauss(1, 0.002)
        )
        for i in range(8)
        for place, (name, gpu_w) in enumerate([("fp16", 300.0), ("4bit", 200.0)])
    }
    result = audited(write(tmp_path, texts))
    assert status(result) == {("fp16", "valid"): 8, ("4bit", "valid"): 8}
    assert {(r.row.energy_scope, r.row.package_j) for r in result.trials} == {("gpu", None)}
    said = {a.basis: a.sentence for a in result.answers}
    assert said["imported"].startswith("No verdict: ")
    assert re.match(r"4bit uses the least energy.*left out: .*1\.9e\+04 W", said["repaired"])


def test_one_treatment_of_a_misread_unit_leaves_the_others_compared_without_it(tmp_path):
    texts = campaign(("a", "b"), runs=8)
    texts |= {f"old/{i}.csv": log(1_760_000_050 + 200 * i, 0.3) for i in range(8)}
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 8, ("b", "valid"): 8, ("old", "invalid"): 8}
    said = {a.basis: a.sentence for a in result.answers}
    assert re.match(r"a uses the least energy.*left out: old: ", said["repaired"])
    assert said["imported"].startswith("No verdict: old: ")


def test_a_gpu_whose_power_reads_nothing_is_not_metered(tmp_path):
    result = audited(
        write(tmp_path, campaign(("a",), gpu_w=0.0, extra={"GPU0_POWER (mWatts)": lambda _: 0}))
    )
    assert status(result) == {("a", "valid"): 5}
    assert {(r.row.energy_scope, r.row.gpu_j) for r in result.trials} == {("package", None)}
    (word,) = [f for f in found(result, "meter-scope") if "0 mW" in f.message]
    assert (word.evidence["file"], word.evidence["line"]) == ("a/0.csv", 2)


def test_one_gpu_that_works_among_idle_ones_is_no_idle_gpu_and_a_control_may_idle(tmp_path):
    idle = {f"GPU{n}_USAGE": lambda _: 0 for n in range(1, 8)}
    idle |= {f"GPU{n}_POWER (mWatts)": lambda row: 20_000 + row % 3 for n in range(1, 8)}
    result = audited(
        write(tmp_path / "many", campaign(("a",), gpu_w=200.0, gpu_pct=30.0, extra=idle))
    )
    assert not found(result, "gpu-idle")
    texts = campaign(("llama",), gpu_w=200.0)
    still = ("control", "no_load", "without-gpu")
    texts |= {
        f"{name}/{i}.csv": log(1_760_010_000 + 1000 * place + 100 * i, gpu_w=20.0, gpu_pct=0)
        for place, name in enumerate(still)
        for i in range(5)
    }
    result = audited(write(tmp_path / "control", texts))
    assert status(result) == {(name, "valid"): 5 for name in (*still, "llama")}
    assert not found(result, "gpu-idle")


def test_a_verdict_counts_the_gpu_or_says_what_it_leaves_out(tmp_path):
    draw = random.Random(3)
    texts = {
        f"{name}/{i}.csv": log(
            1_760_000_000 + 100 * (2 * i + place), package_w * draw.gauss(1, 0.002),
            gpu_w=gpu_w * draw.gauss(1, 0.002),
        )
        for i in range(8)
        for place, (name, package_w, gpu_w) in enumerate([("fp16", 43.0, 300.0), ("4bit", 45.0, 200.0)])
    }  # fmt: skip
    result = audited(write(tmp_path, texts))
    assert {a.basis: a.sentence[:4] for a in result.answers} == {
        "imported": "4bit",
        "repaired": "4bit",
    }
    assert result.trials[0].row.energy_scope == "package+gpu"
    result = audited(write(tmp_path / "few", campaign(runs=8, gpu_w=8.0)))
    assert all("% of the metered joules" in a.sentence for a in result.answers)


def test_treatments_that_meter_different_domains_get_no_verdict_if_that_matters(tmp_path):
    texts = {
        f"{name}/{i}.csv": log(
            1_760_000_000 + 200 * i + 100 * place, 90.0 - 40 * place, gpu_w=gpu_w
        )
        for i in range(5)
        for place, (name, gpu_w) in enumerate((("cpu", None), ("gpu", 200.0)))
    }
    result = audited(write(tmp_path / "gpu", texts))
    assert {a.sentence[:10] for a in result.answers} == {"No verdict"}
    (finding,) = [f for f in found(result, "meter-scope") if f.severity == "error"]
    assert "80 % of the joules of gpu" in finding.message
    assert places([finding]) == [("campaign", "gpu/0.csv", 1)]
    # A little memory beside the package changes no verdict.
    small = campaign(("a",)) | campaign(("b",), dram_w=0.6)
    result = audited(write(tmp_path / "dram", small))
    assert not [f for f in found(result, "meter-scope") if f.severity == "error"]


def test_a_trial_that_lacks_a_domain_is_left_out_and_switches_no_other(tmp_path):
    texts = campaign(("a",), runs=12, dram_w=3.0, gpu_w=100.0)
    texts["a/4.csv"] = log(1_760_000_400, dram_w=3.0)
    result = audited(write(tmp_path, texts))
    assert {r.row.energy_scope for r in result.trials if r.row.run != 4} == {"package+dram+gpu"}
    lacking = [f for f in found(result, "meter-scope") if "left out" in f.message]
    assert places(lacking) == [("trial a/4.csv", "a/4.csv", 1)]
    repaired = result.tables.trials["repaired"]
    assert len(repaired) == 11


# ------------------------------------------------------------------------------------ text logs


REFUSALS = {
    "docker": 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
    "runc": "docker: Error response from daemon: OCI runtime create failed: open /proc/x: permission denied: unknown.",
    "image": "Error response from daemon: No such image: user/cuda:latest",
    "oom": "Killed",
    "cuda": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "shell": "bash: line 1: ./work: Permission denied",
    "podman": "Error: crun: cannot find device nvidia.com/gpu=all: OCI runtime error",
    "script": "python: can't open file '/app/run.py': [Errno 2] No such file or directory",
    "architecture": "exec /usr/bin/python3: exec format error",
    "disk": "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
    "socket": "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
    "time": "Command exited with non-zero status 137",
    "libc": "./work: /lib/libc.so.6: version `GLIBC_2.34' not found (required by ./work)",
    "go": "panic: runtime error: index out of range [5] with length 3",
    "short-name": 'Error: short-name "foo" did not resolve to an alias',
    "statfs": "Error: statfs /data/models: no such file or directory",
    "syntax": "SyntaxError: '(' was never closed",
    "shell-killed": "./run.sh: line 3:  4242 Killed                  python3 main.py",
    "cgroup": "Memory cgroup out of memory: Killed process 4242 (python3) total-vm:1234kB",
    "flag": "unknown flag: --gpus",
    "windows": "'python' is not recognized as an internal or external command",
    "library": "./work: error while loading shared libraries: libcudart.so.12: cannot open shared object file",
}


@pytest.mark.parametrize("words", REFUSALS.values(), ids=REFUSALS)
def test_a_start_that_failed_though_the_meter_wrote_a_log_fails_with_its_words(tmp_path, words):
    texts = campaign(("ubuntu",), runs=8)
    lines = []
    for i in range(8):
        texts[f"cuda/results/energy_results_cuda_{i}.csv"] = log(1_760_100_000 + 100 * i, 20.0, 1.0)
        reduced = reduce_one("x", texts[f"cuda/results/energy_results_cuda_{i}.csv"].encode())
        package = reduced.energy("package")
        assert package is not None
        lines += [
            words,
            f"Energy consumption in joules: {package.summary_j} for 1.0 sec of execution.",
        ]
    texts["cuda/energy_logs_cuda.txt"] = "\n".join(lines) + "\n"
    result = audited(write(tmp_path, texts))
    assert status(result) == {("ubuntu", "valid"): 8, ("cuda", "failed"): 8}
    failures = found(result, "trial-failed")
    assert [f.message for f in failures] == [words] * 8
    assert {f.evidence["file"] for f in failures} == {"cuda/energy_logs_cuda.txt"}
    assert sorted(f.evidence["line"] for f in failures) == [2 * i + 1 for i in range(8)]
    assert not any("cuda" in a.sentence for a in result.answers)


@pytest.mark.parametrize(
    "words",
    ["Killed 3 zombies on level 2", "Aborted transfers: 0", "error rate 0.02, panic: none", "Error: 0.031",
     "version 2 not found (optional)", "checked: Permission denied as expected"],
)  # fmt: skip
def test_words_of_a_sound_run_are_not_a_failure(tmp_path, words):
    texts = campaign(("a", "b"), runs=4)
    texts |= {f"{t}/{i}.txt": f"{words}\ndone\n" for t in "ab" for i in range(4)}
    assert status(audited(write(tmp_path, texts))) == {("a", "valid"): 4, ("b", "valid"): 4}


def test_a_gap_at_the_beginning_of_the_joules_is_the_reason(tmp_path):
    texts = campaign(("a",), runs=4)
    lines = texts["a/1.csv"].splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ",NaN"
    result = audited(write(tmp_path, texts | {"a/1.csv": "\n".join(lines) + "\n"}))
    (finding,) = found(result, "trial-failed")
    assert finding.message == "PACKAGE_ENERGY (J) begins with a gap; left out"
    assert places([finding]) == [("trial a/1.csv", "a/1.csv", 2)]


def test_memory_pressure_has_the_line_that_shows_it(tmp_path):
    swap = {"USED_SWAP": lambda row: 10**9 + (6 * 10**8 if row >= 30 else 0)}
    texts = campaign(("a",)) | {"a/2.csv": log(1_760_000_200, extra=swap)}
    result = audited(write(tmp_path / "apart", texts))
    assert places(found(result, "memory-pressure")) == [("trial a/2.csv", "a/2.csv", 32)]
    appended = texts["a/0.csv"] + log(1_760_000_900, extra=swap)
    result = audited(
        write(tmp_path / "appended", {"a/0.csv": appended, "a/1.csv": texts["a/1.csv"]})
    )
    length = len(texts["a/0.csv"].splitlines())
    assert [f.evidence["line"] for f in found(result, "memory-pressure")] == [length + 32]


def test_a_traceback_fails_with_its_exception_unless_the_program_goes_on(tmp_path):
    traceback = 'Traceback (most recent call last):\n  File "work.py", line 3, in <module>\nRuntimeError: no data\n'
    summary = "Energy consumption in joules: {} for 10.0 sec of execution.\n"
    texts = campaign(("a",), runs=2, name="{0}/run_{1}.csv")
    sums = []
    for i in range(2):
        package = reduce_one("x", texts[f"a/run_{i}.csv"].encode()).energy("package")
        assert package is not None
        sums.append(summary.format(package.summary_j))
    texts["a/run_0.txt"] = traceback + sums[0]
    texts["a/run_1.txt"] = traceback + "retried, 10 answers written\n" + sums[1]
    result = audited(write(tmp_path, texts))
    assert status(result) == {("a", "valid"): 1, ("a", "failed"): 1}
    (failure,) = found(result, "trial-failed")
    assert failure.message == "RuntimeError: no data"
    assert places([failure]) == [("trial a/run_0.csv", "a/run_0.txt", 3)]


@pytest.mark.parametrize("pattern", ["run_{0}.txt", "output_{0}.txt"])
def test_a_text_log_per_run_belongs_to_the_raw_log_of_its_name_or_number(tmp_path, pattern):
    texts = {}
    for i in range(4):
        texts[f"mac/run_{i}.csv"] = log(
            1_760_000_000 + 100 * i, extra={"SYSTEM_POWER (Watts)": lambda r: 14 + r % 2}
        )
        texts[f"mac/run_{i}.csv"] = (
            "\n".join(
                ",".join(c for n, c in enumerate(line.split(",")) if n != 4)
                for line in texts[f"mac/run_{i}.csv"].splitlines()
            )
            + "\n"
        )  # without the package's column: nothing but system power
        # The tool's own sum differs a little from the trapezoids.
        texts[f"mac/{pattern.format(i)}"] = (
            f"Energy consumption in joules: {145.3 + 0.2 * i} for 10.01sec of execution.\n"
        )
    result = audited(write(tmp_path, texts))
    assert status(result) == {("mac", "valid"): 4}
    summaries = [result.campaign.summaries[r.subject][0] for r in result.trials]
    assert summaries == pytest.approx([145.3, 145.5, 145.7, 145.9])


BANNER = "==========\n== CUDA ==\n==========\n\nCUDA Version 12.1.1\n\n"
WORK = "Using cpu device\n[256]\nExperiment is running for image size 256x256\nExperiment took 8.5 seconds\n"
PULL = (
    "Unable to find image 'user/cuda:1' locally\n1: Pulling from user/cuda\nabcdef012345: Pull complete\n"
    "Status: Downloaded newer image for user/cuda:1\n"
)


def test_a_start_without_a_raw_file_is_checked_and_a_repeated_banner_opens_the_next(tmp_path):
    """Three starts: one pulled and overwritten, one that died after its banner, one that is clean."""
    raw = log(1_760_000_200, 30.0)
    package = reduce_one("x", raw.encode()).energy("package")
    assert package is not None
    text = (
        PULL + BANNER + WORK + "Energy consumption in joules: 411.25 for 14.2 sec of execution.\n"
        + BANNER
        + BANNER + WORK + f"Energy consumption in joules: {package.summary_j} for 10.0 sec of execution.\n"
    )  # fmt: skip
    write(
        tmp_path, {"cuda/results/energy_results_cuda_1.csv": raw, "cuda/energy_logs_cuda.txt": text}
    )
    result = audited(tmp_path, versions={"CUDA": "12.6"})
    assert len(result.trials) == 3
    log_file = "cuda/energy_logs_cuda.txt"
    assert places(found(result, "pull-in-window")) == [(f"trial {log_file}:1", log_file, 1)]
    (clean,) = [r for r in result.trials if r.row.raw]
    assert clean.row.status == "valid"
    assert clean.log["line"] == 23
    mismatch = found(result, "device-mismatch")
    assert sum(f.evidence.get("trials", 1) for f in mismatch) == 2
    (claimed,) = [f for f in found(result, "row-untraceable") if "12.6" in f.message]
    assert "3 of 3 starts say 12.1.1" in claimed.message
    assert places([claimed]) == [("image cuda", log_file, 9)]


def test_idle_and_load_of_one_image_have_one_name(tmp_path):
    result = audited(write(tmp_path, campaign(("cuda-base", "cuda_idle"))))
    assert {(r.row.image, r.row.kind) for r in result.trials} == {
        ("cuda-base", "workload"), ("cuda-base", "idle"),
    }  # fmt: skip


def test_a_step_between_days_and_idle_power_that_goes_with_the_image_are_found(tmp_path):
    draw = random.Random(4)
    texts = {}
    for i in range(16):
        start = 1_760_000_000 + 100 * i + (86_400 if i >= 8 else 0)
        texts[f"ubuntu/{i}.csv"] = log(start, (30.0 if i < 8 else 30.4) * draw.gauss(1, 0.001))
        texts[f"cuda/{i}.csv"] = log(start + 50, 30.0 * draw.gauss(1, 0.001))
        for image, watts, after_s in (("ubuntu", 14.0, 25), ("cuda", 20.0, 75)):
            texts[f"{image}_idle/{i}.csv"] = log(
                start + after_s, 8.0 * draw.gauss(1, 0.01), gpu_w=watts + 0.01 * i, gpu_pct=0,
                usage=lambda row: 1.0 + row % 2,
            )  # fmt: skip
    result = audited(write(tmp_path, texts))
    sessions = [f for f in found(result, "drift") if f.evidence.get("kind") == "session"]
    assert places(sessions) == [("image ubuntu", "ubuntu/8.csv", 1)]
    assert sessions[0].evidence["change_pct"] == pytest.approx(1.33, abs=0.3)
    (state,) = [f for f in found(result, "state-changed") if "idle GPU" in f.message]
    assert state.evidence["median_w"] == pytest.approx({"cuda": 20.0, "ubuntu": 14.0}, abs=0.2)


# -------------------------------------------------------------------------------- published tables


def test_each_kind_of_bad_row_is_named_with_its_true_value(tmp_path):
    draw = random.Random(6)
    span = 2.0**18
    texts, rows, text = {}, [], ""
    for i in range(14):
        begin = span - 100.0 if i in (3, 4) else 1000.0 + 64 * i
        raw = log(1_760_000_000 + 100 * i, 30.0 * draw.gauss(1, 0.01), begin_j=begin, span_j=span)
        texts[f"a/results/energy_results_a_{i}.csv"] = raw
        package = reduce_one("x", raw.encode()).energy("package")
        assert package is not None
        rows.append(package)
        if package.summary_j > 0:
            text += (
                f"Energy consumption in joules: {package.summary_j} for 10.0 sec of execution.\n"
            )
        else:
            text += WORK
    texts["a/energy_logs_a.txt"] = text
    published = [p.summary_j for p in rows]
    published[3], published[4] = rows[3].naive_j, -rows[4].naive_j
    published[6] += 100.0
    published[7] = 298.123456
    table = "Run,Energy Consumption (Joules),Execution Time (Seconds)\r\n" + "".join(
        f"{i + 1},{j!r},10.0\r\n" for i, j in enumerate(published)
    )
    texts["preprocessed_results/a_output.csv"] = table
    result = audited(write(tmp_path, texts))
    bad = {f.evidence["line"]: f for f in found(result, "row-untraceable")}
    assert sorted(bad) == [5, 6, 8, 9]
    assert all(f.evidence["file"] == "preprocessed_results/a_output.csv" for f in bad.values())
    assert "negative joules" in bad[5].message
    assert f"{rows[3].joules:.8g} J" in bad[5].message
    assert "absolute value of the run's own negative sum" in bad[6].message
    assert f"{rows[4].joules:.8g} J" in bad[6].message
    assert "leading digits" in bad[8].message
    assert "a/energy_logs_a.txt:" in bad[8].message
    assert len(result.tables.trials["published-repaired"]) == 10


def test_the_study_s_own_lesson_follows_from_its_tables_and_their_logs(tmp_path):
    """Without the pulled start's row and the one of another source, no Shapiro test rejects."""
    for path in sorted(PUBLISHED.glob("*-base_output.csv")):
        name = path.name.removesuffix("_output.csv")
        table = pd.read_csv(path).dropna(how="all")
        text = ""
        for i, (_, joules, seconds) in enumerate(table.itertuples(index=False)):
            if name == "pytorch-base" and i == 29:
                continue  # no run of the campaign gives it
            text += PULL if name == "cuda-base" and i == 0 else ""
            text += (
                WORK + f"Energy consumption in joules: {joules!r} for {seconds} sec of execution.\n"
            )
        write(tmp_path, {f"{name}/energy_logs_{name}.txt": text})
        (tmp_path / "preprocessed_results").mkdir(exist_ok=True)
        (tmp_path / "preprocessed_results" / path.name).write_bytes(path.read_bytes())
    # One raw file, so that there is something measured at all.
    write(tmp_path, {"ubuntu-base/results/energy_results_ubuntu_99.csv": log(1_760_000_000, 45.0)})
    result = audited(tmp_path)
    assert places(found(result, "pull-in-window")) == [
        ("trial cuda-base/energy_logs_cuda-base.txt:1", "cuda-base/energy_logs_cuda-base.txt", 1)
    ]
    untraceable = found(result, "row-untraceable")
    assert places(untraceable) == [
        ("image pytorch-base", "preprocessed_results/pytorch-base_output.csv", 31)
    ]
    repaired = result.tables.trials["published-repaired"]
    energy = {str(i): g["energy_j"].to_numpy(float) for i, g in repaired.groupby("image")}
    assert sum(map(len, energy.values())) == 147
    normality = result.tables.tables["normality"]
    mine = normality[normality["basis"] == "published-repaired"].set_index("image")["shapiro_p"]
    for image, values in energy.items():
        assert mine[image] == pytest.approx(stats.shapiro(values).pvalue)
        assert mine[image] > 0.05
    dunn = result.tables.tables["dunn"]
    pair = dunn[dunn["image_a"].eq("cuda-base") & dunn["image_b"].eq("pytorch-base")].set_index(
        "basis"
    )
    names = sorted(energy)
    p = posthoc_dunn([energy[n] for n in names], p_adjust="bonferroni").to_numpy()
    assert pair.p_bonferroni["published"] == pytest.approx(0.3343, abs=5e-5)
    assert pair.p_bonferroni["published-repaired"] == pytest.approx(
        p[names.index("cuda-base"), names.index("pytorch-base")]
    )
    assert pair.p_bonferroni["published-repaired"] == pytest.approx(0.83, abs=0.005)


def test_most_rows_without_files_are_a_cut_campaign_and_accuse_no_single_row(tmp_path):
    rows = "".join(f"{i},{300 + i}.125,10.0\n" for i in range(20))
    write(tmp_path, campaign(("a",), runs=2))
    write(tmp_path, {"tables/a_output.csv": "Run,Energy (J),Time (s)\n" + rows})
    (word,) = found(audited(tmp_path), "row-untraceable")
    assert (word.severity, word.evidence["line"], len(word.evidence["lines"])) == ("warning", 2, 20)


def test_an_import_s_actions_can_be_taken_by_whoever_audits_it(tmp_path):
    texts = campaign() | {"a/2.csv": log(1_760_000_400, closing=False)}
    result = audited(write(tmp_path, texts))
    (failure,) = found(result, "trial-failed")
    assert failure.action.startswith("Leave the run out")
    assert not any("clear the trial" in f.action.lower() for f in result.findings)


def test_one_sentence_says_whether_the_numbers_can_be_believed(tmp_path):
    sound = audited(write(tmp_path / "sound", campaign(runs=12)))
    assert believed.sentence(sound) == (
        "Yes, as far as the files show: 24 of 24 runs of 2 treatments can be used, and no error was found."
    )
    texts = campaign(runs=12) | {"a/2.csv": log(1_760_000_400, closing=False)}
    assert believed.sentence(audited(write(tmp_path / "cut", texts))) == (
        "Not as they stand: 1 run is faulty or missing; 23 of 24 runs of 2 treatments can be used."
    )
    rows = "".join(f"{i},{300 + i % 7}.125,10.0\n" for i in range(20))
    published = audited(
        write(tmp_path / "rows", {"x_output.csv": "Run,Energy (J),Time (s)\n" + rows})
    )
    assert run.summary(published)["status"] == {"published": 20}
    assert "20 published rows of 1 treatment come without any raw file" in believed.sentence(
        published
    )


def test_the_finding_on_the_order_counts_the_treatments_of_the_page(tmp_path):
    texts = {
        f"{name}/{i}.csv": log(1_760_000_000 + 1000 * place + 100 * i)
        for place, name in enumerate(("x", "x_idle", "y", "y_idle"))
        for i in range(5)
    }
    result = audited(write(tmp_path, texts))
    (finding,) = found(result, "order-not-randomised")
    assert finding.message.startswith(
        "20 trials of 2 treatments, idle ones apart, ran in 4 stretches"
    )
    assert len(result.treatments) == 2


def test_the_page_compares_the_bases_row_by_row_under_their_own_name(tmp_path):
    texts = campaign() | table(
        "run,treatment,energy (J),time (s)", *(f"{i},{t},30{i},10" for i in range(5) for t in "ab")
    )
    result = audited(write(tmp_path, texts))
    run.write(result, tmp_path / "out")
    (energy,) = pd.read_html(tmp_path / "out" / "index.html", match="Energy under load")
    assert list(energy.columns)[:2] == ["treatment", "basis"]
    assert energy.groupby("treatment").size().to_dict() == {"a": 4, "b": 4}
    assert ">host<" not in (tmp_path / "out" / "index.html").read_text()


def test_sentences_about_an_import_speak_of_treatments(tmp_path):
    result = audited(write(tmp_path, campaign(("chrome",))))
    assert {a.sentence for a in result.answers} == {"No verdict: chrome is the only treatment."}
    assert (
        believed.in_their_words("image-a is an image; 2 images")
        == "image-a is a treatment; 2 treatments"
    )


def test_names_that_differ_in_a_suffix_are_two_treatments_if_both_work(tmp_path):
    result = audited(write(tmp_path, campaign(("debian", "debian-base"))))
    assert status(result) == {("debian", "valid"): 5, ("debian-base", "valid"): 5}
    assert "debian, debian-base differ in a suffix only" in result.campaign.inferred[0]
    assert result.campaign.key("debian-base") != result.campaign.key("debian")


def test_suffixes_of_one_image_s_names_come_from_the_mapping(tmp_path):
    write(tmp_path, campaign(("slim@load", "slim_idle")))
    result = audited(tmp_path, suffixes=("_idle", "@load"))
    assert {(r.row.image, r.row.kind) for r in result.trials} == {
        ("slim@load", "workload"), ("slim@load", "idle"),
    }  # fmt: skip
    plain = audited(tmp_path, suffixes=())
    assert {r.row.image for r in plain.trials} == {"slim@load", "slim"}


def test_two_audits_are_compared_against_the_reference_and_nothing_shows_one_machine(
    tmp_path, monkeypatch
):
    """The reference needs five times as much on the second machine, which looks like a saving of the other."""
    monkeypatch.setattr(run_page.figures, "draw", lambda *_, **__: {})
    for place, (folder, base_w) in enumerate((("A", 12.0), ("B", 60.0))):
        draw = random.Random(place)
        texts = {
            f"{image}/{i}.csv": log(
                1_760_000_000 + 1000 * place + 40 * i + 20 * n, watts * draw.gauss(1, 0.004)
            )
            for i in range(10)
            for n, (image, watts) in enumerate((("x", 22.0 + 5 * place), ("base", base_w)))
        }
        result = run.audit(write(tmp_path / folder, texts), mapping.Mapping(), reference="base")
        run.write(result, tmp_path / f"out{folder}")
    compared = compare(
        [str(tmp_path / "outA"), str(tmp_path / "outB")], Options(reference="base"), lambda _: None
    )
    text = sentence(compared)
    assert text.startswith("against base, x uses 75")
    assert "(in joules 219.9 → 270.1)" in text
    assert "no host is named" in text
    assert any("nothing shows them to be of one machine" in note for note in compared.notes)


def test_six_runs_of_one_afternoon_are_no_series_of_nights():
    day = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def runs(hours: int) -> list[StoredRun]:
        return [
            StoredRun("", f"r{i}", day + timedelta(hours=hours * i), {}, None, b"")
            for i in range(6)
        ]  # type: ignore[arg-type]

    assert not is_series(runs(1))
    assert is_series(runs(24))


def test_printed_tables_are_compared_under_the_mapping_s_suffixes(tmp_path):
    joules = {"a": (300.0, 301.0, 302.0, 304.0), "b": (310.0, 311.5, 312.0, 313.0)}
    rows = "".join(f"{i},{j},10\n" for i, j in enumerate(joules["a"], start=1))
    (tmp_path / "a@load_output.csv").write_text(
        "Run,Energy Consumption (Joules),Execution Time (Seconds)\n" + rows
    )
    rows = "".join(f"{i},{j},10\n" for i, j in enumerate(joules["b"], start=1))
    (tmp_path / "b@load_output.csv").write_text(
        "Run,Energy Consumption (Joules),Execution Time (Seconds)\n" + rows
    )
    printed = {"energy": [{"image": "a", "mean_j": 301.75}, {"image": "b", "mean_j": 311.63}]}
    joined = audited(tmp_path, suffixes=("_output.csv", "@load"), printed=printed)
    assert not [f for f in found(joined, "row-untraceable") if "printed table" in f.message]
    apart = audited(tmp_path, printed=printed)
    wrong = [f for f in found(apart, "row-untraceable") if "printed table" in f.message]
    assert [f.subject for f in wrong] == ["image a", "image b"]


@pytest.mark.parametrize("phase_s", [0.0, 0.05, 0.13])
def test_the_averaging_of_a_gpu_s_sensor_is_within_the_half_width(tmp_path, phase_s):
    """Truth steps from 100 to 300 W at 9.5 s of 10 s; NVML reports the mean of the last second."""

    def energy_j(t: float) -> float:
        return 100.0 * t + 200.0 * max(0.0, t - 9.5)

    def reported(row: int) -> int:
        t = 0.2 * max(row - 1, 0) + phase_s
        return round(1000 * (energy_j(t) - energy_j(t - 1.0)))

    text = log(1_760_000_000, extra={"GPU0_POWER (mWatts)": reported, "GPU0_USAGE": lambda _: 90.0})
    result = audited(write(tmp_path, {f"a/{i}.csv": text for i in range(1)}))
    (gpu,) = [d for d in result.trials[0].domains if d.name == "gpu0"]
    truth_j = energy_j(10.0 + phase_s) - energy_j(phase_s)
    # Of the step's 100 J the mean over a second shows a quarter only, 200 W · (0.5 s)² / 2.
    assert truth_j - gpu.energy_j > 45.0
    assert abs(gpu.energy_j - truth_j) <= gpu.uncertainty_j
    assert result.trials[0].row.energy_uncertainty_j >= gpu.uncertainty_j


def test_the_summary_names_treatments_beside_the_contract_s_images(tmp_path):
    summary = run.summary(audited(write(tmp_path, campaign(runs=2))))
    assert summary["treatments"] == summary["images"] == ["a", "b"]


def test_the_sentence_and_the_summary_count_the_same_treatments_where_some_trials_are_idle(
    tmp_path,
):
    idle = {f"a_idle/results/{i}.csv": log(1_770_000_000 + 100 * i) for i in range(2)}
    result = audited(write(tmp_path, campaign(runs=2) | idle))
    assert {r.row.kind for r in result.trials} == {"workload", "idle"}
    assert "runs of 2 treatments" in believed.sentence(result)
    assert run.summary(result)["treatments"] == ["a", "b"]


def test_levels_of_a_state_that_changed_are_shown_apart(tmp_path):
    def memory(i):
        return {"TOTAL_MEMORY": lambda _: 16_720_330_752 + (12_288 if i > 2 else 0)}

    texts = {f"a/{i}.csv": log(1_760_000_000 + 100 * i, extra=memory(i)) for i in range(6)}
    (word,) = [
        f
        for f in found(audited(write(tmp_path, texts)), "state-changed")
        if f.evidence["what"] == "memory seen by the kernel"
    ]
    assert word.message.endswith("campaign: 16720330752, 16720343040")


def test_what_limits_a_verdict_is_said_in_whole_sentences(tmp_path):
    notes = [n for a in audited(write(tmp_path, campaign(runs=12))).answers for n in a.notes]
    assert any("not run in blocks" in n for n in notes)
    assert all(n[0].isupper() and n.endswith(".") for n in notes if "against" not in n)
