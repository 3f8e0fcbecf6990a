"""A whole campaign in the study's layout, with every oddity planted at a known place, through the command."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from wattbench.analysis.__main__ import main

UNIT = 2.0**-14
SPAN = 2.0**32 * UNIT
HEADER = (
    "Delta,Time,CPU_FREQUENCY_0,CPU_USAGE_0,DRAM_ENERGY (J),GPU0_MEMORY_TOTAL,GPU0_MEMORY_USED,"
    "GPU0_POWER (mWatts),GPU0_TEMPERATURE,GPU0_USAGE,PACKAGE_ENERGY (J),PP0_ENERGY (J),PP1_ENERGY (J),"
    "TOTAL_MEMORY,TOTAL_SWAP,USED_MEMORY,USED_SWAP"
)


def on_unit(joules: float) -> float:
    return math.floor(joules / UNIT) * UNIT


@dataclass
class Host:
    """A simulated machine: one clock, counters that wrap, and what it truly used."""

    time_ms: int = 1_742_860_000_000
    package: float = 100.0
    dram: float = 500.0
    random: random.Random = field(default_factory=lambda: random.Random(7))

    def run(
        self, busy_s: float, busy_w: float, *, cut: int | None = None, junk_end: bool = False
    ) -> dict:
        """One metered run of 10 s sampling: the CSV's text, the true joules, and the summary line."""
        end_s = (int(busy_s // 10) + 1) * 10 + 10
        start, truth = self.time_ms, []
        lines, used = [HEADER], 0.0
        times = [0, 0, *range(10, end_s + 1, 10)]
        for row, t in enumerate(times):
            step = 0.0 if row == 0 else (0.02 if row == 1 else 10.0)
            watts = busy_w if t <= busy_s else 12.0
            used += step * watts
            truth.append(used)
            self.dram += step * 2.0
            delta = 0 if row == 0 else (21 if row == len(times) - 1 else 10_000)
            lines.append(
                f"{delta},{start + 1000 * t},800,{90 if 0 < t < busy_s and busy_w > 12 else 3},{on_unit(self.dram % SPAN)},4096,390,"
                f"{20_000 + self.random.randrange(3) * 241},35,0,{on_unit((self.package + used) % SPAN)},"
                f"{on_unit(used * 0.7)},0,16720330752,4294963200,{1_100_000_000 + 1000 * t},850000000"
            )
        wraps = int((self.package + truth[-1]) // SPAN) - int(self.package // SPAN)
        first = on_unit(self.package % SPAN)
        last_but_one = on_unit((self.package + truth[-2]) % SPAN)
        self.package += used
        self.time_ms += 1000 * (end_s + 60)
        if cut is not None:
            lines = lines[: cut + 1]
        text = "\n".join(lines) + "\n"
        if junk_end:
            text = text[:-30]
        joules = last_but_one - first
        summary = (
            f"Energy consumption in joules: {joules} for {end_s + 0.06:.3f} sec of execution.\n"
        )
        return {
            "csv": text, "joules": used, "seconds": float(end_s), "wraps": wraps, "summary": summary if joules > 0 else "",
            "summary_j": joules, "summary_s": round(end_s + 0.06, 3),
        }  # fmt: skip


def prints(busy_s: float, device: str = "cpu", done: int = 2) -> str:
    text = f"Using {device} device\n[256, 512]\n"
    for size, share in list(zip((256, 512), (0.4, 0.6), strict=True))[:done]:
        text += f"Experiment is running for image size {size}x{size}\nExperiment took {share * busy_s} seconds\n"
    return text


PULL = (
    "Unable to find image 'user/resnet50:beta' locally\nbeta: Pulling from user/resnet50\n9cb31e2e37ea: Already exists\n"
    "4497933460c8: Pull complete\nDigest: sha256:"
    + "4" * 64
    + "\nStatus: Downloaded newer image for user/resnet50:beta\n"
)
PANIC = "thread 'main' panicked at src/main.rs:7:5:\noverflow when subtracting durations\n"


@dataclass
class Planted:
    """A campaign on disk and what is true of it."""

    folder: Path
    truth: dict[str, dict] = field(default_factory=dict)


def build(folder: Path) -> Planted:
    host, planted = Host(), Planted(folder)
    host.package = SPAN - 60_000.0  # the second run or so wraps

    def image(
        name: str,
        stem: str,
        watts: float,
        seconds: float,
        n: int,
        idle: bool = False,
        base: str = "",
    ) -> None:
        results = folder / name / "results"
        results.mkdir(parents=True)
        log = ""
        for run in range(n):
            busy = 180.0 if idle else seconds + host.random.random() * 8
            done = host.run(busy, 12.0 if idle else watts + host.random.random())
            log += (
                ("[sudo] password for user: " if run == 0 else "")
                + ("" if idle else prints(busy))
                + done["summary"]
            )
            path = f"{name}/results/energy_results_{stem}_{run}.csv"
            (folder / path).write_text(done["csv"])
            planted.truth[path] = done
        (folder / name / f"energy_logs_{stem}.txt").write_text(base + log)

    image("alpha-base", "alpha-base", 46.0, 400.0, 6)
    image("beta", "beta", 48.0, 420.0, 6)
    image("alpha_idle", "alpha", 12.0, 180.0, 4, idle=True)
    beta = folder / "beta"
    # Runs that were overwritten: their starts are only in the log, before all others.
    lost = (
        prints(421.0)
        + "Energy consumption in joules: 20480.5 for 430.06 sec of execution.\n"
        + prints(300.0, done=1)
    )
    # A pull in the window of the run after them, and a run whose meter gave up while the work went on.
    late = host.run(420.0, 48.0, cut=20)
    (beta / "results" / "energy_results_beta_6.csv").write_text(late["csv"])
    log = (beta / "energy_logs_beta.txt").read_text()
    orphan = "Using cpu device\n[256, 512]\nExperiment is running for image size 256x256\n" + PANIC
    orphan += "Experiment took 168.0 seconds\nExperiment is running for image size 512x512\nExperiment took 252.0 seconds\n"
    (beta / "energy_logs_beta.txt").write_text(
        lost + PULL + log.removeprefix("[sudo] password for user: ") + orphan
    )
    for suffix, text in (("7", ""), ("8", HEADER + "\n"), ("9", "\x00\x01junk\xff" * 50)):
        (beta / "results" / f"energy_results_beta_{suffix}.csv").write_bytes(text.encode("latin-1"))
    (beta / "energy_measurements_beta.csv").write_text("Run,Energy (J),Time (sec)\n")
    derived = folder / "preprocessed_results"
    derived.mkdir()
    for variant, name in (
        ("alpha-base", "alpha-base"),
        ("beta-base", "beta"),
        ("alpha_idle", "alpha_idle"),
    ):
        rows = [t for p, t in planted.truth.items() if p.startswith(name + "/") and t["summary"]]
        lines = ["Run,Energy Consumption (Joules),Execution Time (Seconds)"]
        lines += [f"{i},{t['summary_j']},{t['summary_s']}" for i, t in enumerate(rows, start=1)]
        if variant == "beta-base":
            lines.append(f"{len(lines)},20123.4567890123,425.5")  # no run gives this
        (derived / f"{variant}_output.csv").write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode())
    (folder / "README.md").write_text("about\n")
    return planted


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Path, int]:
    folder = tmp_path_factory.mktemp("campaign") / "planted"
    planted = build(folder)
    out = folder.parent / "out"
    return planted, out, main(["audit", str(folder), "--out", str(out)])


@pytest.fixture(scope="module")
def trials(audited: tuple[Planted, Path, int]) -> pd.DataFrame:
    return pd.read_csv(audited[1] / "trials.csv")


@pytest.fixture(scope="module")
def findings(audited: tuple[Planted, Path, int]) -> list[dict]:
    return json.loads((audited[1] / "findings.json").read_text())


def found(findings: list[dict], code: str) -> list[dict]:
    return [f for f in findings if f["code"] == code and f["verdict"] == "found"]


def test_errors_found_end_with_exit_code_one(audited):
    assert audited[2] == 1


def test_every_raw_file_and_every_start_without_one_is_a_row(trials, audited):
    planted, _, _ = audited
    assert set(planted.truth) <= set(trials.raw.dropna())
    assert trials.raw.notna().sum() == len(planted.truth) + 4
    lost = trials[trials.run.isna()]
    assert list(lost.image) == ["beta", "beta"]
    assert set(lost.status) == {"missing", "failed"}


def test_package_joules_are_the_true_ones_wraps_corrected(trials, audited):
    planted, _, _ = audited
    by_file = trials.set_index("raw")
    wraps = 0
    for path, truth in planted.truth.items():
        assert by_file.loc[path, "package_j"] == pytest.approx(truth["joules"], abs=2 * UNIT), path
        assert by_file.loc[path, "wraps"] == truth["wraps"], path
        assert by_file.loc[path, "duration_s"] == truth["seconds"]
        wraps += truth["wraps"]
    assert wraps >= 1


def test_images_and_kinds_come_from_folders(trials):
    assert set(zip(trials.image, trials.kind, strict=True)) == {
        ("alpha-base", "workload"), ("beta", "workload"), ("alpha-base", "idle")
    }  # fmt: skip


def test_positions_follow_the_files_own_times(trials):
    timed = trials.dropna(subset="started_at").sort_values("position")
    assert timed.started_at.is_monotonic_increasing
    assert timed.position.is_unique


def test_a_pull_takes_its_own_run_out_and_no_other(trials, findings):
    pulls = found(findings, "pull-in-window")
    assert [f["subject"] for f in pulls] == ["trial beta/results/energy_results_beta_0.csv"]
    assert pulls[0]["evidence"]["file"] == "beta/energy_logs_beta.txt"
    assert pulls[0]["evidence"]["line"] == 12
    row = trials[trials.raw == "beta/results/energy_results_beta_0.csv"].iloc[0]
    assert row.status == "invalid"
    assert row.reason.startswith("pull-in-window")


def test_a_wrong_device_that_all_share_is_the_campaigns_and_empties_no_table(
    audited, trials, findings
):
    (mismatch,) = found(findings, "device-mismatch")
    assert mismatch["subject"] == "campaign"
    assert mismatch["evidence"]["examples"][0]["actual"] == "cpu"
    assert (trials.status == "valid").sum() == 6 + 5 + 4
    energy = pd.read_csv(audited[1] / "tables" / "energy.csv")
    assert set(energy.basis) == {"published", "published-repaired", "imported", "repaired"}


def test_repairs_recover_wrapped_runs_and_take_faulty_ones_out(audited):
    planted, out, _ = audited
    repairs = pd.read_csv(out / "tables" / "repairs.csv").set_index(["image", "kind"])
    silent = [p for p, t in planted.truth.items() if not t["summary"]]
    assert silent
    assert repairs.recovered_from_wraps.sum() == len(silent)
    assert (
        repairs.loc[("beta", "workload"), "taken_out"] == 2
    )  # the pull, and a run of which only the log is left


def test_imported_counts_every_summary_line_with_its_own_numbers(audited):
    planted, out, _ = audited
    energy = pd.read_csv(out / "tables" / "energy.csv")
    beta = energy[(energy.basis == "imported") & (energy.image == "beta")].iloc[0]
    sums = [
        t["summary_j"] for p, t in planted.truth.items() if p.startswith("beta/") and t["summary"]
    ] + [20480.5]
    assert beta.n == len(sums)
    assert beta.mean_j == pytest.approx(sum(sums) / len(sums))


def test_a_derived_row_without_a_source_is_named_by_line(findings):
    (row,) = found(findings, "row-untraceable")
    assert row["evidence"]["file"] == "preprocessed_results/beta-base_output.csv"
    assert row["evidence"]["energy_j"] == 20123.4567890123


def test_a_container_that_outlived_its_meter_is_found_with_its_lines(findings, trials):
    (orphan,) = found(findings, "container-orphaned")
    assert orphan["subject"] == "trial beta/results/energy_results_beta_6.csv"
    assert len(orphan["evidence"]["lines"]) == 3
    assert trials[trials.raw == "beta/results/energy_results_beta_6.csv"].iloc[0].status == "failed"


@pytest.mark.parametrize("run", [7, 8, 9])
def test_files_without_usable_rows_are_rows_that_failed(trials, run):
    row = trials[trials.raw == f"beta/results/energy_results_beta_{run}.csv"].iloc[0]
    assert row.status == "failed"
    assert row.run == run
    assert row.reason
    assert pd.isna(row.energy_j)


@pytest.mark.parametrize(
    "code",
    ["order-not-randomised", "gpu-idle", "sampling-coarse", "duration-quantised", "meter-scope", "counter-wrap",
     "trial-missing", "trial-failed", "image-unpinned", "sensor-stale"],
)  # fmt: skip
def test_the_reviewers_other_checks_find_their_fault(findings, code):
    assert found(findings, code)


def test_a_code_is_not_both_found_and_not_found(findings):
    for code in {f["code"] for f in findings}:
        assert not ({"found", "not-found"} <= {f["verdict"] for f in findings if f["code"] == code})


def test_tables_begin_with_their_basis_and_hold_no_nan_text(audited):
    for path in (audited[1] / "tables").glob("*.csv"):
        text = path.read_text()
        assert text.splitlines()[0].split(",")[0] == "basis", path.name
        assert "nan" not in text.lower(), path.name


def test_the_page_stands_alone_and_names_places(audited):
    html = (audited[1] / "index.html").read_text()
    for needle in (
        "prefers-color-scheme",
        "<svg",
        "beta/energy_logs_beta.txt:12",
        "row-untraceable",
    ):
        assert needle in html
    assert "<link" not in html
    assert 'src="http' not in html


def test_the_same_campaign_gives_the_same_bytes(audited, tmp_path):
    planted, out, _ = audited
    assert main(["audit", str(planted.folder), "--out", str(tmp_path)]) == 1
    for name in ("index.html", "trials.csv", "findings.json", "summary.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.slow
def test_the_command_runs_as_a_module(audited, tmp_path):
    planted, _, _ = audited
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "audit", str(planted.folder / "preprocessed_results"), "--out", str(tmp_path)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
