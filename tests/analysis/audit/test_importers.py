"""The importers' parts: text logs, reduction of many files, matching, experiment-runner, wattbench's own runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.study import SAMPLE
from wattbench.analysis.__main__ import main
from wattbench.analysis.audit import page
from wattbench.analysis.audit.importers.log_matching import pair
from wattbench.analysis.audit.importers.reduce import Energy, Reduced, reduce_one, scan
from wattbench.analysis.audit.logs import lines_of, parse


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.figures, "draw", lambda *_, **__: {})


def starts(text: str):
    return parse("log", lines_of(text.encode().splitlines(keepends=True)))


WORK = "Using cpu device\n[256, 512]\nExperiment is running for image size 256x256\nExperiment took 3.5 seconds\n"
MORE = "Experiment is running for image size 512x512\nExperiment took 4.5 seconds\n"
SUMMARY = "Energy consumption in joules: 12.5 for 20.1 sec of execution.\n"


def test_a_complete_start_is_read_with_its_lines():
    (start,) = starts("[sudo] password for user: " + WORK + MORE + SUMMARY)
    assert (start.line, start.last_line, start.device_line, start.summary_line) == (1, 7, 1, 7)
    assert (start.device, start.sizes, start.worked_s, start.complete) == (
        "cpu",
        (256, 512),
        8.0,
        True,
    )
    assert (start.summary_j, start.summary_s) == (12.5, 20.1)


def test_a_start_without_a_summary_ends_where_the_next_begins():
    first, second = starts(WORK + MORE + WORK + MORE + SUMMARY)
    assert (first.summary_j, second.summary_j) == (None, 12.5)
    assert second.line == 7


def test_a_summary_glued_to_output_without_line_end_is_found():
    (start,) = starts(WORK + MORE.rstrip("\n") + SUMMARY)
    assert start.complete
    assert start.summary_j == 12.5


@pytest.mark.parametrize(
    ("wording", "device"),
    [
        ("Using cuda:0 device", "cuda"),
        ("Using device: cpu", "cpu"),
        ("device = mps", "mps"),
        ("Running on GPU", "gpu"),
    ],
)
def test_devices_are_read_in_several_wordings(wording, device):
    (start,) = starts(wording + "\n")
    assert start.device == device


def test_a_note_on_how_to_use_a_gpu_is_no_device():
    assert (
        starts(
            "   Use the NVIDIA Container Toolkit to start this container with GPU support; see\n"
        )
        == ()
    )


def test_a_pull_belongs_to_the_start_after_it():
    pull = "Unable to find image 'u/r:t' locally\nt: Pulling from u/r\nabcdef012345: Retrying in 5 seconds\nabcdef012345: Pull complete\n"
    first, second = starts(
        WORK + MORE + SUMMARY + pull + "Digest: sha256:" + "a" * 64 + "\n" + WORK + MORE + SUMMARY
    )
    assert first.pull is None
    assert second.pull == (8, 12)
    assert (second.ref, second.layers_downloaded, second.digest) == (
        "u/r:t",
        1,
        "sha256:" + "a" * 64,
    )


def test_a_panic_before_any_output_is_a_start_of_its_own():
    panic = "[sudo] password for user: thread 'main' panicked at src/main.rs:1:1:\nNo such file or directory\n"
    first, second = starts(panic + WORK + MORE + SUMMARY)
    assert first.panic is not None
    assert "No such file" in first.panic
    assert second.panic is None


def test_output_after_a_panic_is_the_same_start_going_on():
    (start,) = starts(WORK + "thread 'main' panicked at x.rs:1:1:\nGPU is lost\n" + MORE)
    assert start.after_panic == (7, 8)


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_log(data):
    parse("x", lines_of(data.splitlines(keepends=True)))


# ------------------------------------------------------------------------------ reduction of files

HEADER = "Delta,Time,CPU_USAGE_0,DRAM_ENERGY (J),GPU0_POWER (mWatts),GPU0_USAGE,PACKAGE_ENERGY (J)"


def file_of(steps_j: list[int], start: int, span: float, oddity: str) -> tuple[bytes, float]:
    """A log in units of 2^-14 J, its true package joules, and maybe something odd about it."""
    unit = 2.0**-14
    # The second row follows the first at once.
    counts = np.cumsum([start, steps_j[0] // 10_000, *steps_j[1:]])
    times = [1_742_860_000_000 + 10_000 * max(i - 1, 0) for i in range(len(counts))]
    if oddity == "gap":
        times = [t + (60_000 if i > len(times) // 2 else 0) for i, t in enumerate(times)]
    lines = [HEADER]
    for i, (t, count) in enumerate(zip(times, counts, strict=True)):
        delta = 0 if i == 0 else (20 if i == len(times) - 1 else 10_000)
        lines.append(f"{delta},{t},{50 + i % 3},{i * 0.5},{20_000 + i},3,{(count * unit) % span}")
    if oddity == "repeat":
        lines.insert(4, lines[3])
    text = ("\r\n" if oddity == "crlf" else "\n").join(lines) + "\n"
    return text.encode(), (counts[-1] - counts[0]) * unit


@settings(max_examples=60)
@given(
    # Odd, as nearly half of a counter's steps are: a counter that only moves by multiples looks coarser.
    steps=st.lists(st.integers(100_000, 9_000_000).map(lambda n: n | 1), min_size=14, max_size=40),
    start=st.integers(0, 2**32 - 1),
    oddity=st.sampled_from(["", "", "gap", "repeat", "crlf"]),
)
def test_reducing_a_batch_is_reducing_each_file_and_both_give_the_true_joules(
    tmp_path_factory, steps, start, oddity
):
    folder = tmp_path_factory.mktemp("scan")
    data, truth = file_of(steps, start, 2.0**18, oddity)
    neighbour, _ = file_of(steps[::-1], start // 2, 2.0**18, "")
    paths = [folder / "a.csv", folder / "b.csv"]
    paths[0].write_bytes(data)
    paths[1].write_bytes(neighbour)
    together = list(scan(paths))
    for path, reduced in zip(paths, together, strict=True):
        alone = reduce_one(str(path), path.read_bytes())
        assert [(e.name, e.wraps) for e in reduced.energies] == [
            (e.name, e.wraps) for e in alone.energies
        ]
        for a, b in zip(reduced.energies, alone.energies, strict=True):
            assert a.joules == pytest.approx(b.joules, rel=1e-9)
        assert reduced.duration_s == alone.duration_s
        assert reduced.constant == alone.constant
    package = together[0].energy("package")
    assert package is not None
    assert package.joules == pytest.approx(truth, abs=2.0**-13)


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    paths = []
    for i in range(7):
        paths.append(tmp_path / f"{i}.csv")
        paths[-1].write_bytes(file_of([5_000_000 + i] * 20, i, 2.0**18, "")[0])
    alone = list(scan(paths))
    monkeypatch.setattr("wattbench.analysis.audit.processes.PARALLEL_FROM", 0)
    assert list(scan(paths)) == alone


# ------------------------------------------------------------------------------------------ matching


def raw(
    name: str, at: float, joules: float, seconds: float = 100.0, wrapped: bool = False
) -> Reduced:
    summary = joules - 262144 if wrapped else joules
    energy = Energy("package", "P", joules + 5, summary + 5, summary)
    return Reduced(name, 12, at, at + seconds, 10.0, 10.0, 0.02, (energy,))


def logged(*sums: float | None):
    """Starts of 95 s of work, with and without a summary line."""
    text = ""
    for joules in sums:
        text += WORK.replace("3.5", "40") + MORE.replace("4.5", "55")
        text += (
            f"Energy consumption in joules: {joules} for 100.06 sec of execution.\n"
            if joules
            else ""
        )
    return starts(text)


def matched(pairs) -> list[tuple[int | None, str | None]]:
    return [(s.line if s else None, r.path if r else None) for s, r in pairs]


def test_starts_match_files_by_joules_whatever_the_file_numbers():
    found = pair(
        logged(100.5, 200.25, 300.125),
        [raw("0", 900.0, 300.125), raw("1", 0.0, 100.5), raw("2", 400.0, 200.25)],
    )
    assert matched(found) == [(1, "1"), (8, "2"), (15, "0")]


def test_a_start_without_a_summary_takes_the_wrapped_file_between_its_neighbours():
    files = [raw("a", 0, 100.5), raw("b", 200, 150.5, wrapped=True), raw("c", 400, 300.5)]
    assert matched(pair(logged(100.5, None, 300.5), files)) == [(1, "a"), (8, "b"), (14, "c")]


def test_starts_whose_files_were_overwritten_stay_alone():
    files = [raw("a", 500, 100.5), raw("b", 700, 300.5)]
    assert matched(pair(logged(77.5, 100.5, None, 300.5), files)) == [
        (8, "a"),
        (21, "b"),
        (1, None),
        (15, None),
    ]


def test_files_of_a_log_that_was_lost_stay_alone():
    assert matched(pair((), [raw("b", 5, 1.0), raw("a", 0, 2.0)])) == [(None, "a"), (None, "b")]


# ------------------------------------------------------------------------------- the sample campaign


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.figures, "draw", lambda *_, **__: {})
        assert main(["audit", str(SAMPLE), "--out", str(out)]) == 1
    return out


def test_the_sample_campaign_shows_what_can_be_seen_there(sample):
    findings = json.loads((sample / "findings.json").read_text())
    found = {f["code"] for f in findings if f["verdict"] == "found"}
    assert {
        "device-mismatch", "gpu-idle", "pull-in-window", "counter-wrap", "order-not-randomised", "sampling-coarse",
        "duration-quantised", "meter-scope", "image-unpinned", "state-changed", "memory-pressure", "startup-in-window",
        "workload-changed", "sensor-stale",
    } <= found  # fmt: skip
    (pull,) = [f for f in findings if f["code"] == "pull-in-window" and f["verdict"] == "found"]
    assert (pull["evidence"]["file"], pull["evidence"]["line"]) == (
        "ubuntu_idle/energy_logs_ubuntu.txt",
        1,
    )
    wraps = sorted(
        (f["evidence"]["file"], f["evidence"]["line"])
        for f in findings
        if f["code"] == "counter-wrap" and f["severity"] == "info"
    )
    assert wraps == [
        ("cuda-base/results/energy_results_cuda-base_11.csv", 62), ("ubuntu/results/energy_results_ubuntu_3.csv", 48)
    ]  # fmt: skip


def test_runs_whose_summary_line_was_lost_to_a_wrap_are_named_with_their_line(sample):
    findings = json.loads((sample / "findings.json").read_text())
    lost = [f for f in findings if f["code"] == "counter-wrap" and f["severity"] == "warning"]
    assert [(f["subject"], f["evidence"]["file"], f["evidence"]["line"]) for f in lost] == [
        (
            "trial cuda-base/results/energy_results_cuda-base_11.csv",
            "cuda-base/energy_logs_cuda-base.txt",
            33,
        ),
        ("trial ubuntu/results/energy_results_ubuntu_3.csv", "ubuntu/energy_logs_ubuntu.txt", 23),
    ]


def test_the_samples_joules_are_last_minus_first_plus_the_register(sample):
    trials = pd.read_csv(sample / "trials.csv").set_index("raw")
    for path, row in trials.iterrows():
        column = pd.read_csv(SAMPLE / str(path))["PACKAGE_ENERGY (J)"]
        falls = int((column.diff() < 0).sum())
        assert row.package_j == pytest.approx(
            column.iloc[-1] - column.iloc[0] + 262144 * falls, abs=1e-6
        )
        assert row.wraps == falls


# -------------------------------------------------------------------------------- other layouts


def test_experiment_runners_folders_are_imported_by_their_factors(tmp_path):
    root = tmp_path / "experiments" / "new_runner_experiment"
    root.mkdir(parents=True)
    table = ["__run_id,__done,sampling,engine,dram_energy,package_energy"]
    for i, engine in enumerate(["torch", "onnx", "torch", "onnx"]):
        data, truth = file_of([4_000_000 + 1000 * i] * 15, 7, 2.0**18, "")
        data = data.replace(b"174286", str(174286 + i).encode())
        run = f"run_{i}_repetition_0"
        done = "TODO" if i == 3 else "DONE"
        if i != 3:
            (root / run).mkdir()
            (root / run / "energibridge.csv").write_bytes(data)
        wrong = 1.0 if i == 2 else 0.0
        table.append(f"{run},{done},200,{engine},1.0,{truth + wrong if i != 3 else ' '}")
    (root / "run_table.csv").write_text("\n".join(table) + "\n")
    (root / "metadata.json").write_text("{}")
    out = tmp_path / "out"
    assert main(["audit", str(tmp_path / "experiments"), "--out", str(out)]) == 1
    trials = pd.read_csv(out / "trials.csv")
    assert list(trials.image) == ["200 / torch", "200 / onnx", "200 / torch", "200 / onnx"]
    assert list(trials.status) == ["valid", "valid", "valid", "missing"]
    untraced = [
        f
        for f in json.loads((out / "findings.json").read_text())
        if f["code"] == "row-untraceable" and f["verdict"] == "found"
    ]
    assert [f["evidence"]["line"] for f in untraced] == [4]
    energy = pd.read_csv(out / "tables" / "energy.csv")
    assert set(energy.basis) == {"published", "published-repaired", "imported", "repaired"}
