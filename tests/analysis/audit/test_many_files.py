"""Campaigns of many raw logs: each oddity is found in its own file, by several processes as by one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.analysis.__main__ import main
from wattbench.analysis.model.escaping import write_frame
from wattbench.analysis.model.trials import TrialRow, to_frame, write_rows

pytestmark = pytest.mark.slow

HEADER = (
    "Delta,Time,CPU_FREQUENCY_0,CPU_USAGE_0,DRAM_ENERGY (J),GPU0_MEMORY_USED,GPU0_POWER (mWatts),GPU0_USAGE,"
    "PACKAGE_ENERGY (J),TOTAL_MEMORY,USED_MEMORY,USED_SWAP,FAN (rpm)"
)
UNIT, SPAN = 2.0**-14, 2.0**18


def log_of(
    draw: random.Random,
    at_ms: int,
    *,
    rows: int = 40,
    watts: float = 900.0,
    gpu: int = 0,
    swap: int = 0,
    busy: int = 5,
    power_step: int = 1,
    dram_j: float | None = None,
) -> str:
    """One log of rows of 10 s; the first two come at once."""
    lines, package = [HEADER], draw.randrange(2**32) * UNIT
    for row in range(rows):
        package += (0.01 if row == 1 else 10.0) * draw.gauss(watts, 0.2) * (row > 0)
        dram = (package / 10) // UNIT * UNIT % SPAN if dram_j is None else dram_j
        delta = 0 if row == 0 else (20 if row == rows - 1 else 9_999)
        lines.append(
            f"{delta},{at_ms + 10_000 * max(row - 1, 0)},800,{busy + row % 7},{dram},390,{19_000 + power_step * row},"
            f"{gpu * (row % 3)},{package // UNIT * UNIT % SPAN},16720330752,{10**9 + row},{10**9 + swap * row},{900 + row}"
        )
    return "\n".join(lines) + "\n"


#: What is special about single logs of the campaign.
SPECIAL = {
    8: {"gpu": 30},
    17: {"rows": 10},  # ended early
    21: {"swap": 2_000_000},
    22: {"rows": 120},  # sampled densely enough
    23: {"busy": 60},  # an idle trial in which the CPU works
    26: {"busy": 60},
    27: {"busy": 20},
    29: {"power_step": 0},  # GPU power stands still under load
    37: {"dram_j": 0.0},  # no counter of memory
    38: {"dram_j": 512.0},  # one that does not move
}


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """Three images in turn, one of them idle too, and one log of every kind of trouble."""
    draw, folder = random.Random(4), tmp_path / "campaign"
    for i in range(48):
        image = ("alpha", "beta", "gamma", "alpha_idle")[i % 4]
        results = folder / image / "results"
        results.mkdir(parents=True, exist_ok=True)
        usual = {"watts": 900.0 if i % 4 < 3 else 90.0, "gpu": 30 if image == "beta" else 0}
        text = log_of(draw, 1_742_860_000_000 + i * 500_000, **usual | SPECIAL.get(i, {}))
        if i == 25:
            text = text[: len(text) // 2]
        if i == 30:
            text = text.replace(",9999,", ",x,")
        name = f"energy_results_{image}_{i // 4}.csv" if i != 33 else "energy_results_other.csv"
        (results / name).write_text(text)
    (folder / "alpha" / "results" / "energy_results_alpha_70.csv").write_bytes(b"")
    (folder / "alpha" / "results" / "energy_results_alpha_71.csv").write_text(HEADER + "\n")
    (folder / "beta" / "results" / "energy_results_beta_72.csv").write_bytes(b"\xff\x00" * 50)
    late = log_of(draw, 1_742_860_100_000)
    (folder / "gamma" / "results" / "energy_results_gamma_73.csv").write_text(late)
    return folder


def audited(campaign: Path, out: Path) -> dict[str, bytes]:
    """Every file of an audit's results."""
    assert main(["audit", str(campaign), "--out", str(out)]) == 1
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def findings(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "findings.json").read_text()))


def test_each_oddity_is_found_in_its_own_file(campaign, tmp_path):
    audited(campaign, tmp_path / "out")
    trials = pd.read_csv(tmp_path / "out" / "trials.csv").set_index("raw")
    assert {"valid", "invalid", "failed"} == set(trials.status)
    assert trials.reason.str.contains("ended early").sum() == 1
    files = {
        i: f"{image}/results/energy_results_{image}_{i // 4}.csv"
        for i in SPECIAL
        for image in [("alpha", "beta", "gamma", "alpha_idle")[i % 4]]
    }

    def codes(i: int) -> set[str]:
        return set(str(trials.loc[files[i], "findings"]).split())

    assert "gpu-idle" not in codes(8)
    assert "memory-pressure" in codes(21)
    assert "host-busy" in codes(23) & codes(26) & codes(27)
    assert "host-busy" not in codes(8)
    assert "sensor-stale" in codes(29)
    assert "meter-silent" in codes(38)
    assert pd.isna(trials.loc[files[37], "dram_j"])
    assert trials.loc[files[38], "dram_j"] == 0.0
    late = "trial gamma/results/energy_results_gamma_73.csv"
    assert late in {f["subject"] for f in findings(tmp_path / "out") if f["code"] == "clock-skew"}
    (finding,) = (f for f in findings(tmp_path / "out") if "FAN (rpm)" in f["message"])
    assert (finding["code"], finding["severity"], finding["evidence"]["files"]) == (
        "file-unread",
        "info",
        50,
    )


def test_two_processes_write_what_one_writes(campaign, tmp_path, monkeypatch):
    one = audited(campaign, tmp_path / "one")
    monkeypatch.setattr("wattbench.analysis.audit.processes.PARALLEL_FROM", 0)
    monkeypatch.setattr("wattbench.analysis.audit.processes.CHUNK_FILES", 2)
    assert audited(campaign, tmp_path / "two") == one


text = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1)
numbers = st.none() | st.floats(allow_infinity=False)
integers = st.none() | st.integers(0, 2**53)


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            TrialRow,
            st.just("run"),
            st.sampled_from(["", "h1"]),
            st.sampled_from(["workload", "idle"]),
            integers,
            integers,
            integers,
            st.just("a"),
            reason=text,
            energy_j=numbers,
            duration_s=numbers,
            wraps=integers,
            late=st.none() | st.booleans(),
            findings=text,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rows_are_written_as_a_frame_is(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("csv")
    write_frame(to_frame(rows), folder / "frame.csv")
    write_rows(rows, folder / "rows.csv")
    assert (folder / "rows.csv").read_bytes() == (folder / "frame.csv").read_bytes()
