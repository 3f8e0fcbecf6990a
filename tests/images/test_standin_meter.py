"""The stand-in meter against its own truth and against what is known of EnergiBridge.

Expected formats, exit codes and timings are those observed of the real tool (0.0.7 with a signal
handler); expected joules come from the closed form of the power model, not from the counters.
"""

from __future__ import annotations

import ast
import csv
import itertools
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.side_by_side import side_by_side

pytestmark = pytest.mark.slow  # meters in real time

METER = Path(__file__).parents[2] / "images/worker-host/energibridge"
INTEL_TWO_CPUS = (
    "Delta,Time,CPU_FREQUENCY_0,CPU_FREQUENCY_1,CPU_USAGE_0,CPU_USAGE_1,DRAM_ENERGY (J),"
    "PACKAGE_ENERGY (J),PP0_ENERGY (J),PP1_ENERGY (J),TOTAL_MEMORY,TOTAL_SWAP,USED_MEMORY,USED_SWAP"
)
AMD_TWO_CPUS = (
    "Delta,Time,CORE0_ENERGY (J),CORE0_FREQ (MHZ),CORE0_PSTATE,CORE0_VOLT (V),CORE1_ENERGY (J),"
    "CORE1_FREQ (MHZ),CORE1_PSTATE,CORE1_VOLT (V),CPU_ENERGY (J),CPU_FREQUENCY_0,CPU_FREQUENCY_1,"
    "CPU_USAGE_0,CPU_USAGE_1,TOTAL_MEMORY,TOTAL_SWAP,USED_MEMORY,USED_SWAP"
)
PACKAGE = "PACKAGE_ENERGY (J)"
SPIN = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < {}: pass"


@dataclass
class Outcome:
    rc: int
    stdout: str
    stderr: str
    csv: Path
    truth: dict[str, Any]

    @property
    def header(self) -> str:
        return self.csv.read_text().split("\n", 1)[0]

    @property
    def rows(self) -> list[dict[str, float]]:
        with self.csv.open() as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


class Bench:
    """Runs the meter in a folder of its own; kills by pid whatever a fault left running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.csv = folder / "e.csv"

    def environ(self, fault: str = "", **more: str) -> dict[str, str]:
        return os.environ | {
            "WATTBENCH_METER_CONFIG": str(self.folder / "none.json"),
            "WATTBENCH_METER_TRUTH": str(self.folder / "truth.json"),
            "WATTBENCH_METER_FAULT": fault,
            **more,
        }

    def run(self, *argv: str, fault: str = "", interval: int = 50, **environ: str) -> Outcome:
        done = subprocess.run(
            [METER, "-i", str(interval), "-o", self.csv, *argv],
            capture_output=True, text=True, timeout=20, env=self.environ(fault, **environ),
        )  # fmt: skip
        truth = self.folder / "truth.json"
        facts = json.loads(truth.read_text()) if truth.exists() else {}
        return Outcome(done.returncode, done.stdout, done.stderr, self.csv, facts)

    def sleeper(self, seconds: float = 30) -> list[str]:
        """A command that leaves its pid behind and holds none of our pipes."""
        code = (
            f"import os,time; open({str(self.folder / 'pid')!r},'w').write(str(os.getpid()))\n"
            f"for n in (0, 1, 2): os.close(n)\ntime.sleep({seconds})"
        )
        return ["--", sys.executable, "-S", "-c", code]

    def sleepers_pid(self) -> int:
        path = self.folder / "pid"
        deadline = time.monotonic() + 10
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return int(path.read_text())

    def killed(self, within_s: float = 5) -> bool:
        """Whether the sleeper was killed: a busy machine may take its time to bury it."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not alive(self.sleepers_pid()):
                return True
            time.sleep(0.005)
        os.kill(self.sleepers_pid(), signal.SIGKILL)
        return False

    def left_running(self) -> bool:
        """Whether the sleeper lives on, a while after the meter's end; ends it."""
        return not self.killed(within_s=0.2)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


#: name: (arguments, keywords of Bench.run). Run side by side: the meter mostly sleeps.
SCENARIOS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "wide": (("-g", "true"), {"fault": "cpus:12,gpus:11"}),
    "gpu without nvml": (("-g", "true"), {}),
    "nvml without gpu": (("true",), {"fault": "gpus:1"}),
    "gpu": (
        ("-g", "sleep", "0.8"),
        {"fault": "gpus:1,gpu_w:100,gpu_swing_w:50,gpu_period_s:1.1"},
    ),
    "gpu stale": (
        ("-g", "sleep", "0.5"),
        {"fault": "gpus:1,gpu_stale:3,gpu_swing_w:50,gpu_period_s:0.37"},
    ),
    "gpu never": (("-g", "true"), {"fault": "gpus:1,gpu_stale:1"}),
    "model": (
        (sys.executable, "-c", SPIN.format(0.3)),
        {"fault": "idle_w:10,core_w:100,dram_idle_w:1,dram_core_w:3"},
    ),
    "summary": (
        ("--summary", sys.executable, "-c", SPIN.format(0.3) + "\nprint('last=42', end='')"),
        {"interval": 100},
    ),
    "summary over a wrap": (("--summary", "sleep", "0.2"), {"fault": "wrap_after_j:0.5"}),
    "exit code": (("sh", "-c", "exit 7"), {}),
    "killed command": (("--summary", "sh", "-c", "sleep 0.3; kill -9 $$"), {}),
    "no folder": (("true",), {"fault": "no-folder"}),
    "not found": (("true",), {"fault": "not-found"}),
    "clock forward": (("sleep", "0.4"), {"fault": "clock_step_ms:5000,clock_step_row:3"}),
    "reset": (("sleep", "0.3"), {"fault": "reset:3"}),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    def run(name: str, _: int) -> Outcome:
        argv, more = SCENARIOS[name]
        return Bench(tmp_path_factory.mktemp("meter")).run(*argv, **more)

    return side_by_side(run, SCENARIOS, 5)


Outcomes = dict[str, Outcome]
Benches = Callable[[Iterable[Callable[[Bench], None]]], None]


@pytest.fixture
def benches(tmp_path: Path) -> Benches:
    """Runs checks side by side, each on a bench of its own: the meter mostly sleeps."""

    def check(checks: Iterable[Callable[[Bench], None]]) -> None:
        with ThreadPoolExecutor(8) as pool:
            waiting = []
            for n, one in enumerate(checks):
                folder = tmp_path / str(n)
                folder.mkdir()
                waiting.append(pool.submit(one, Bench(folder)))
            for future in waiting:
                future.result()

    return check


def unwrapped(values: list[float], span: float) -> float:
    return sum((b - a) % span for a, b in itertools.pairwise(values))


def test_the_file_is_python_3_9_and_standard_library_only() -> None:
    tree = ast.parse(METER.read_text(), feature_version=(3, 9))
    imported = {
        ((node.module if isinstance(node, ast.ImportFrom) else alias.name) or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= set(sys.stdlib_module_names)
    assert os.access(METER, os.X_OK)


def test_it_never_calls_itself_the_real_tool() -> None:
    shown = subprocess.run([METER, "-V"], capture_output=True, text=True, check=True)
    assert shown.stdout == "energibridge-standin 0.0.7-modelled\n"


WRONG: tuple[tuple[list[str], int], ...] = (
    ([], 1),
    (["-i", "0.5", "--", "true"], 2),
    (["-m", "-1", "--", "true"], 2),
    (["--nonsense", "--", "true"], 2),
    (["--int", "200", "--", "true"], 2),
    (["-i", "4294967296", "--", "true"], 2),
    (["--", "/nonexistent/command"], 1),
)


def test_a_wrong_command_line_is_refused_with_the_tools_exit_code(benches: Benches) -> None:
    def refused(argv: list[str], rc: int) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            done = subprocess.run([str(METER), *argv], stderr=subprocess.PIPE, env=bench.environ())
            assert (argv, done.returncode) == (argv, rc)
            assert done.stderr

        return check

    benches(refused(*case) for case in WRONG)


def test_an_unknown_switch_is_refused_with_the_known_ones(bench: Bench) -> None:
    out = bench.run("true", fault="msr-strat")
    assert out.rc == 2
    assert "unknown switch 'msr-strat'" in out.stderr
    assert "msr_start" in out.stderr


HEADERS = {
    "cpus:2": INTEL_TWO_CPUS,
    "cpus:2,platform:amd": AMD_TWO_CPUS,
    "cpus:2,platform:unknown": re.sub(r"[A-Z0-9]+_ENERGY \(J\),", "", INTEL_TWO_CPUS),
}


def test_the_header_is_that_of_the_platform(benches: Benches) -> None:
    def shown(fault: str, header: str) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            out = bench.run("--summary", "true", fault=fault)
            assert (out.rc, out.header) == (0, header)
            if "ENERGY" not in header or len(out.rows) == 2:
                assert out.stdout == ""  # nothing to sum, no summary

        return check

    benches(shown(*case) for case in HEADERS.items())


def test_columns_are_sorted_as_strings_beyond_ten_cpus_and_gpus(outcomes: Outcomes) -> None:
    out = outcomes["wide"]
    columns = out.header.split(",")
    assert columns[2:] == sorted(columns[2:])
    assert columns.index("CPU_USAGE_10") < columns.index("CPU_USAGE_2")
    assert columns.index("GPU10_USAGE") < columns.index("GPU1_USAGE")
    assert columns.index("DRAM_ENERGY (J)") < columns.index("GPU0_MEMORY_TOTAL")
    assert len(columns) == 2 + 2 * 12 + 4 + 4 + 5 * 11


def test_gpu_columns_need_both_the_flag_and_nvml(outcomes: Outcomes) -> None:
    assert "GPU" not in outcomes["gpu without nvml"].header
    assert "GPU" not in outcomes["nvml without gpu"].header


def test_timing_of_rows_is_that_of_the_tool(bench: Bench) -> None:
    out = bench.run("-i", "100", "sleep", "0.45")
    delta, times = out.column("Delta"), out.column("Time")
    assert 0 <= delta[0] < 60
    assert 0 <= times[1] - times[0] < 60
    steps = [b - a for a, b in itertools.pairwise(times[1:])]
    # medians: a busy machine may stall single rows
    assert 99 <= statistics.median(steps) < 140
    short = [step - d for step, d in zip(steps, delta[1:-1], strict=True)]
    assert min(short) >= 0
    assert statistics.median(short) <= 2
    # a fresh last sample at the first tick after the end, so up to one interval late
    assert times[-1] >= out.truth["command"]["ended"]["unix_ms"] - 1
    assert times[-2] <= out.truth["command"]["ended"]["unix_ms"] + 1


def test_a_command_over_at_once_has_two_or_three_rows(outcomes: Outcomes) -> None:
    assert len(outcomes["nvml without gpu"].rows) in (2, 3)


def test_counted_joules_equal_the_truth_over_a_wrap(benches: Benches) -> None:
    def counted(platform: str, column: str, span: float) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            fault = f"platform:{platform},wrap_after_j:2"
            out = bench.run(sys.executable, "-c", SPIN.format(0.3), fault=fault)
            counter = out.column(column)
            assert min(counter) < 100 < span - 100 < max(counter) < span
            unit = span / 2**32
            assert all(math.fmod(value, unit) == 0 for value in counter)
            truth = out.truth["rows_joules"]["package"]
            assert unwrapped(counter, span) == pytest.approx(truth, abs=2 * unit)

        return check

    benches(
        counted(*case) for case in (("intel", PACKAGE, 2.0**18), ("amd", "CPU_ENERGY (J)", 2.0**16))
    )


def test_the_truth_is_the_power_model_over_time_and_the_hosts_cpu_time(outcomes: Outcomes) -> None:
    out = outcomes["model"]
    started, ended = (out.truth["command"][edge] for edge in ("started", "ended"))
    seconds, cpu_s = ended["mono_s"] - started["mono_s"], ended["cpu_s"] - started["cpu_s"]
    assert cpu_s > 0.01  # the spinning command is in it
    joules = out.truth["command"]["joules"]
    assert joules["package"] == pytest.approx(10 * seconds + 100 * cpu_s, abs=1e-3)
    assert joules["dram"] == pytest.approx(1 * seconds + 3 * cpu_s, abs=1e-3)
    assert joules["pp0"] < joules["package"]


def test_counters_start_above_zero_and_go_on_over_runs(bench: Bench) -> None:
    first = bench.run("true").column(PACKAGE)
    second = bench.run("true").column(PACKAGE)
    # They count since boot, so on a machine that has been up for hours they have wrapped already.
    span_j = 2**32 * 2**-14
    assert 0 < first[0] < span_j
    assert 0 <= (first[-1] - first[0]) % span_j < 200
    assert 0 < (second[0] - first[-1]) % span_j < 200


def test_gpu_power_integrates_to_the_known_truth(outcomes: Outcomes) -> None:
    out = outcomes["gpu"]
    power, times = out.column("GPU0_POWER (mWatts)"), out.column("Time")
    trapezoids = sum(
        (a + b) / 2e6 * (t - s)
        for a, b, s, t in zip(power, power[1:], times, times[1:], strict=False)
    )
    assert max(power) - min(power) > 60_000
    assert trapezoids == pytest.approx(out.truth["rows_joules"]["gpu0"], rel=0.02)


def test_stale_gpu_power_repeats_and_a_sensor_that_never_worked_has_no_column(
    outcomes: Outcomes,
) -> None:
    stale = outcomes["gpu stale"]
    power = stale.column("GPU0_POWER (mWatts)")
    assert len(set(power[1:])) == 1
    assert len(power) > 4
    absent = outcomes["gpu never"]
    assert "GPU0_POWER" not in absent.header
    assert "GPU0_USAGE" in absent.header


def test_the_summary_omits_the_last_interval_and_is_glued_to_an_unfinished_line(
    outcomes: Outcomes,
) -> None:
    out = outcomes["summary"]
    found = re.fullmatch(
        r"last=42Energy consumption in joules: ([\d.]+) for ([\d.]+) sec of execution.\n",
        out.stdout,
    )
    assert found
    counter = out.column(PACKAGE)
    assert float(found[1]) == pytest.approx(counter[-2] - counter[0], abs=1e-9)
    assert float(found[2]) > 0.3


def test_the_summary_is_missing_when_a_wrap_makes_it_negative(outcomes: Outcomes) -> None:
    out = outcomes["summary over a wrap"]
    assert (out.rc, out.stdout) == (0, "")


def test_the_commands_output_goes_to_its_file_and_the_csv_to_stdout_by_default(
    tmp_path: Path,
) -> None:
    environ = os.environ | {"WATTBENCH_METER_CONFIG": "/nonexistent"}
    out = tmp_path / "out"
    argv = [
        str(METER),
        "-i20",
        "-s;",
        f"--command-output={out}",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, env=environ)
    assert out.read_text() == "out\n"
    assert done.stdout.startswith("Delta;Time;CPU_FREQUENCY_0")
    assert "err\n" in done.stderr
    assert "[WARNING]" in done.stderr


def test_the_exit_code_is_the_commands(outcomes: Outcomes) -> None:
    assert outcomes["exit code"].rc == 7


def test_a_command_killed_by_a_signal_is_a_panic_without_a_last_row(outcomes: Outcomes) -> None:
    out = outcomes["killed command"]
    assert out.rc == 101
    assert "panicked at" in out.stderr
    assert "Energy" not in out.stdout
    # what was sampled after the end is not written; an end may fall into a sample's millisecond
    assert len(out.rows) == len(out.truth["rows"]) - 1
    assert out.column("Time")[-1] <= out.truth["command"]["ended"]["unix_ms"]


def test_unreadable_counters_at_the_start_leave_no_command_and_an_old_file(bench: Bench) -> None:
    bench.csv.write_text("old")
    out = bench.run("touch", str(bench.folder / "ran"), fault="msr-start")
    assert (out.rc, out.csv.read_text()) == (101, "old")
    assert not (bench.folder / "ran").exists()


def test_a_missing_output_folder_is_a_panic_before_the_command(outcomes: Outcomes) -> None:
    out = outcomes["no folder"]
    assert out.rc == 101
    assert "Failed to open output file" in out.stderr
    assert out.truth["command"]["started"] is None


def test_a_command_that_is_not_found_leaves_an_empty_file(outcomes: Outcomes) -> None:
    out = outcomes["not found"]
    assert (out.rc, out.csv.read_text()) == (1, "")
    assert "Failed to execute command: No such file or directory (os error 2)" in out.stderr


PANICS = (
    ("msr-later:3", 2, "MSR"),
    ("gpu-lost:3,gpus:1", 2, "GpuLost"),
    ("slow-sample:2", 1, "overflow when subtracting durations"),
    ("clock-step-ms:-5000,clock-step-row:3", 2, "SystemTimeError"),
)


def test_a_panic_leaves_the_command_running(benches: Benches) -> None:
    def left(fault: str, rows: int, message: str) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            # A long interval: on a busy machine a sample may take long, which is another panic.
            out = bench.run("-g", *bench.sleeper(), fault=fault, interval=150)
            assert bench.left_running(), fault
            assert out.rc == 101, fault
            assert "panicked at" in out.stderr
            assert message in out.stderr
            full = [line for line in out.csv.read_text().split("\n") if line.count(",") > 5]
            assert len(full) == 1 + rows, fault

        return check

    benches(left(*case) for case in PANICS)


def test_a_clock_step_forward_stretches_one_delta(outcomes: Outcomes) -> None:
    out = outcomes["clock forward"]
    long = [d for d in out.column("Delta") if d > 1000]
    assert len(long) == 1
    assert 5049 <= long[0] < 6000


def test_max_execution_kills_the_command_and_looks_like_success(bench: Bench) -> None:
    out = bench.run("-m", "1", *bench.sleeper(), interval=300)
    assert out.rc == 0
    assert bench.killed()
    assert out.column("Delta")[-1] >= 299  # no fresh sample: the last tick's


def test_a_signal_kills_the_command_with_rc_1_and_says_so_on_stdout(benches: Benches) -> None:
    def stopped(number: signal.Signals) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            meter = subprocess.Popen(
                [METER, "-i", "150", "-o", bench.csv, *bench.sleeper()],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=bench.environ(), text=True,
            )  # fmt: skip
            bench.sleepers_pid()  # it runs
            meter.send_signal(number)
            stdout, _ = meter.communicate(timeout=10)
            assert (meter.returncode, stdout) == (1, "\nReceived Ctrl+C, stopping...\n")
            assert bench.killed()

        return check

    benches(map(stopped, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))


def test_without_a_handler_a_signal_kills_the_meter_and_orphans_the_command(bench: Bench) -> None:
    out = bench.run(*bench.sleeper(), fault="handler:0,terminated:3")
    assert out.rc == -signal.SIGTERM
    assert bench.left_running()


def test_a_killed_meter_leaves_a_partial_row(benches: Benches) -> None:
    def cut(row: int) -> Callable[[Bench], None]:
        def check(bench: Bench) -> None:
            out = bench.run("sleep", "0.2", fault=f"partial_row:{row}")
            *complete, last = out.csv.read_text().split("\n")
            assert out.rc == -signal.SIGKILL
            assert 1 < last.count(",") < complete[0].count(",")
            assert (row == 3) == (len(complete) == 3)  # the header and two rows

        return check

    benches(map(cut, (3, -1)))


def test_a_reset_counter_starts_again_near_zero(outcomes: Outcomes) -> None:
    values = outcomes["reset"].column(PACKAGE)
    assert values[1] > 10  # a second or so after a wrap it would not be
    assert 0 <= values[2] < 1


def test_switches_come_from_a_file_so_that_the_command_stays_the_same(bench: Bench) -> None:
    path = bench.folder / "meter.json"
    path.write_text(json.dumps({"platform": "amd", "cpus": 2}))
    assert bench.run("true", WATTBENCH_METER_CONFIG=str(path)).header == AMD_TWO_CPUS
    path.write_text("[")
    refused = bench.run("true", WATTBENCH_METER_CONFIG=str(path))
    assert refused.rc == 2
    assert str(path) in refused.stderr


def test_a_sample_costs_less_than_a_millisecond_of_cpu(bench: Bench) -> None:
    """CPU time of the meter itself, from wait4: a long run minus a short one, a sample."""

    def cost(seconds: str) -> tuple[float, int]:
        environ = bench.environ("cpus:12")
        argv = [str(METER), "-i", "10", "-o", str(bench.csv), "sleep", seconds]
        meter = subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(meter.pid, 0)
        meter.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime, len(bench.csv.read_text().splitlines())

    short, few = cost("0.05")
    long, many = cost("1")
    assert many - few > 60
    assert (long - short) / (many - few) < 1e-3
