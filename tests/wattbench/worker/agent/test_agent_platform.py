from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml_library
from wattbench.analysis.checks.facts import HostFacts
from wattbench.analysis.model.run_document import read_facts
from wattbench.worker.agent import preflight, processes, sysfs
from wattbench.worker.agent.meters import rapl
from wattbench.worker.agent.meters.command import energy_columns
from wattbench.worker.agent.sampler import Sampler

pytestmark = pytest.mark.slow  # warm-up, rest and meters in real time

STAND_IN = Path(__file__).parents[4] / "images" / "worker-host" / "energibridge"


@pytest.fixture
def platform(agent: Any, tmp_path: Path) -> Path:
    """A machine of its own with an Intel CPU: a /proc and /sys that tests fill in."""
    root = tmp_path / "platform"
    for name, text in {
        "proc/stat": "cpu  1000 0 500 9000 100 0 0 0 0 0\ncpu0 1 1 1 1\n",
        "proc/1/stat": Path("/proc/1/stat").read_text(),
        "proc/sys/kernel/random/boot_id": "3d2f\n",
        "proc/cpuinfo": "processor: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon E5\n"
        "physical id\t: 0\n\nprocessor: 1\nmodel name\t: Xeon E5\nphysical id\t: 1\n",
        "proc/meminfo": "MemTotal:       32768 kB\nMemAvailable:    1024 kB\n",
        "proc/vmstat": "nr_free_pages 1\npswpin 12\npswpout 34\n",
        "sys/class/hwmon/hwmon0/name": "coretemp\n",
        "sys/class/hwmon/hwmon0/temp1_input": "41000\n",
        "sys/class/hwmon/hwmon0/temp2_input": "43500\n",
        "sys/class/hwmon/hwmon1/name": "nvme\n",
        "sys/class/hwmon/hwmon1/temp1_input": "70000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3000000\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
        "sys/devices/system/cpu/smt/active": "1\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    agent.environment["WATTBENCH_SYSROOT"] = str(root)
    return root


def add_zone(root: Path, zone: str, name: str, energy_uj: int, range_uj: int) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def test_edges_hold_what_the_platform_tells(agent: Any, platform: Path) -> None:
    add_zone(platform, "intel-rapl:0", "package-0", 5_000_000, 262143328850)
    add_zone(platform, "intel-rapl:0:0", "dram", 1_000_000, 65712999613)
    agent.take()
    edge = agent.run(agent.sh("true"))["edges"]["before"]
    assert edge["powercap"] == {
        "intel-rapl:0": {
            "name": "package-0", "energy_uj": 5_000_000, "max_energy_range_uj": 262143328850,
        },
        "intel-rapl:0:0": {
            "name": "dram", "energy_uj": 1_000_000, "max_energy_range_uj": 65712999613,
        },
    }  # fmt: skip
    assert edge["throttle"] == {"core": 7}
    assert edge["swap"] == {"pswpin": 12, "pswpout": 34}
    assert edge["memory_available_bytes"] == 1024 * 1024
    assert edge["frequency_khz"] == 2.5e6
    assert edge["temperature_c"] == 43.5
    # user + system of 1000 + 500 ticks of 10 ms; idle and iowait are no work
    assert edge["cgroup_cpu_ns"] == 1500 * 10**9 // os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct", "."], ids=["v1", "v1 joined", "v2"])
def test_a_virtual_host_reports_how_often_its_quota_held_it_back(
    agent: Any, platform: Path, folder: str
) -> None:
    (platform / ".dockerenv").touch()
    stat = platform / "sys/fs/cgroup" / folder / "cpu.stat"
    stat.parent.mkdir(parents=True, exist_ok=True)
    stat.write_text("nr_periods 90\nnr_throttled 17\nthrottled_time 4000\n")
    agent.take()
    report = agent.run(agent.sh(f"sed -i s/17/19/ {stat}"))
    counts = [report["edges"][edge]["throttle"]["cpu_quota"] for edge in ("before", "after")]
    assert counts == [17, 19]


def test_powercap_as_the_meter_brackets_the_window(agent: Any, platform: Path) -> None:
    counter = add_zone(platform, "intel-rapl:0", "package-0", 1_000, 5_000)
    add_zone(platform, "intel-rapl:1", "package-1", 77, 5_000)
    agent.take()
    meter = {"kind": "powercap", "interval_ms": 200}
    spec = agent.sh(f"echo 2000 > {counter}; echo done", meter=meter)
    report = agent.run(spec)
    assert report["state"] == "done"
    assert report["meter"]["rc"] == 0
    folder = agent.attempt_folder(spec)
    assert (folder / "stdout.log").read_text() == "done\n"
    assert not (folder / "energibridge.csv").exists()
    rows = list(csv.DictReader((folder / "powercap.csv").read_text().splitlines()))
    assert list(rows[0]) == ["unix_s", "mono_s", "intel-rapl:0", "intel-rapl:1"]
    window = report["command"]
    assert window["started"]["powercap_uj"] == {"intel-rapl:0": 1000, "intel-rapl:1": 77}
    assert window["ended"]["powercap_uj"] == {"intel-rapl:0": 2000, "intel-rapl:1": 77}
    assert float(rows[0]["mono_s"]) < window["started"]["mono_s"]
    assert window["ended"]["mono_s"] < float(rows[-1]["mono_s"])
    assert (rows[0]["intel-rapl:0"], rows[-1]["intel-rapl:0"]) == ("1000", "2000")


def test_powercap_is_sampled_often_enough_to_see_every_wrap(tmp_path: Path) -> None:
    """A counter of 100 J at 500 W wraps every 0.2 s: a quarter of that is the period."""
    values = iter(range(1000))
    path = tmp_path / "powercap.csv"
    sampler = Sampler(str(path), ["zone"], lambda: [next(values)], 100 / (4 * 500))
    sampler.start()
    deadline = time.monotonic() + 20
    while path.read_text().count("\n") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sampler.finish()
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(r["zone"]) for r in rows] == list(range(len(rows)))
    times = [float(row["mono_s"]) for row in rows[:-1]]  # the last comes when it is asked to
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert min(steps) >= 0.049


def test_mean_power_survives_a_wrap_and_leaves_subzones_out() -> None:
    def zone(energy: int | None) -> dict[str, Any]:
        return {"name": "x", "energy_uj": energy, "max_energy_range_uj": 999_999}

    before = {"intel-rapl:0": zone(900_000), "intel-rapl:0:0": zone(0), "intel-rapl:1": zone(None)}
    after = {"intel-rapl:0": zone(400_000), "intel-rapl:0:0": zone(9), "intel-rapl:1": zone(None)}
    # 100 000 µJ to the end of the range, 400 000 beyond: 0.5 J in 2 s
    assert rapl.power_w(before, after, 2.0) == pytest.approx(0.25)
    assert rapl.power_w({}, {}, 1.0) is None


def test_facts_name_the_machine_and_what_speaks_against_it(agent: Any, platform: Path) -> None:
    facts = agent.call(
        "facts",
        {
            "meter": {"kind": "powercap"}, "sample_s": 0.05, "docker": False,
            "min_free_bytes": 10**18, "gpus": ["GPU-1"],
        },
    )  # fmt: skip
    assert facts["agent_sha256"] == hashlib.sha256(agent.program.read_bytes()).hexdigest()
    host = facts["host"]
    assert (host["cpu_model"], host["sockets"], host["virtual"]) == ("Xeon E5", 2, False)
    assert host["memory_bytes"] == 32768 * 1024
    assert host["boot"].startswith("3d2f/")
    assert facts["cpu"] == {"governor": "powersave", "turbo": True, "smt": True}
    assert facts["idle"]["temperature_c"] == 43.5
    assert facts["idle"]["cpu_pct"] == 0
    problems = {p["code"]: p for p in facts["problems"]}
    assert {c for c, p in problems.items() if p["severity"] == "hard"} == {
        "meter-failed", "disk-full", "gpu-missing",
    }  # fmt: skip
    assert problems["governor"]["severity"] == "soft"
    assert problems["turbo"]["action"].endswith("intel_pstate/no_turbo'")
    rows = {row["code"]: row for row in facts["probes"]}
    assert list(rows) == [probe.code for probe in preflight.PROBES]
    assert rows["host-busy"]["severity"] == "fine"
    assert all(p["message"] and p["action"] for p in facts["problems"])
    assert problems["meter-failed"]["action"] == "sudo modprobe intel_rapl_msr"


def test_what_a_platform_does_not_report_is_unknown_and_no_problem(
    agent: Any, platform: Path
) -> None:
    shutil.rmtree(platform / "sys")
    facts = agent.call("facts", {"sample_s": 0, "docker": False})
    unknown = {row["code"] for row in facts["probes"] if row["severity"] == "unknown"}
    assert {"governor", "turbo", "sensors", "throttling"} <= unknown
    assert not unknown & {p["code"] for p in facts["problems"]}
    assert all(row["message"] for row in facts["probes"] if row["severity"] == "unknown")


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything; others see closed files")
def test_unreadable_counters_are_nowhere_taken_for_zero(agent: Any, platform: Path) -> None:
    counter = add_zone(platform, "intel-rapl:0", "package-0", 1, 100)
    counter.unlink()  # root may read closed files, so the absent one stands for it
    facts = agent.call("facts", {"meter": {"kind": "powercap"}, "sample_s": 0, "docker": False})
    assert facts["sensors"]["powercap"] == {"intel-rapl:0": False}
    problem = next(p for p in facts["problems"] if p["code"] == "meter-failed")
    assert problem["action"] == "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    assert facts["idle"]["power_w"] is None


def test_meter_is_proved_by_a_run_that_yields_energy(agent: Any) -> None:
    meter = {"kind": "modelled", "command": [str(STAND_IN)], "interval_ms": 100}
    facts = agent.call("facts", {"meter": meter, "sample_s": 0, "docker": False})
    assert facts["meter"]["ok"] is True
    assert "PACKAGE_ENERGY (J)" in facts["meter"]["columns"]
    assert facts["meter"]["version"]
    assert not list(agent.spool.glob(".meter-*"))


@pytest.mark.parametrize(
    ("text", "gpus", "words"),
    [
        ("", False, "no file"),
        ("Delta,Time,CPU_USAGE_0\n0,1,2\n", False, "no energy columns"),
        ("Delta,Time,PACKAGE_ENERGY (J)\n0,1,5\n1,2,5\n", False, "stay at one value"),
        ("Delta,Time,PACKAGE_ENERGY (J)\n0,1,5\n1,2,6\n", True, "no GPU power columns"),
        ("Delta,Time,GPU0_POWER (mWatts)\n0,1,0\n1,2,0\n", True, "stay at one value"),
    ],
)
def test_meter_without_usable_energy_is_refused(text: str, gpus: bool, words: str) -> None:
    verdict = energy_columns(text, gpus)
    assert verdict["ok"] is False
    assert words in verdict["message"]


def test_wrapping_counter_counts_as_alive() -> None:
    text = "Delta,Time,PACKAGE_ENERGY (J)\n0,1,262143\n1,2,1\n"
    assert energy_columns(text, False)["ok"] is True


def test_refused_meter_is_quoted_with_the_command_that_opens_it(agent: Any, platform: Path) -> None:
    meter = agent.make_meter(
        "closed",
        before="printf \"thread 'main' panicked at src/msr.rs:3:5:\\nPermission denied\\n\" >&2; exit 101",
    )
    msr = platform / "dev/cpu/0/msr"
    wanted = {"kind": "energibridge", "command": meter, "interval_ms": 200}
    facts = agent.call("facts", {"meter": wanted, "sample_s": 0, "docker": False})
    problem = next(p for p in facts["problems"] if p["code"] == "meter-failed")
    assert problem["severity"] == "hard"
    assert problem["message"] == (
        f"{meter} ended with 101: thread 'main' panicked at src/msr.rs:3:5: Permission denied"
    )
    assert problem["action"].startswith("sudo sh -c 'modprobe msr && ")
    assert problem["action"].endswith(f"sudo setcap cap_sys_rawio=ep {meter}")
    msr.parent.mkdir(parents=True)
    msr.write_text("")
    facts = agent.call("facts", {"meter": wanted, "sample_s": 0, "docker": False})
    problem = next(p for p in facts["problems"] if p["code"] == "meter-failed")
    assert "modprobe" not in problem["action"]


SLOW = "printf \"thread 'main' panicked at src/main.rs:9:5:\\noverflow when subtracting durations\\n\" >&2; exit 101"


def meter_problem(agent: Any, meter: str) -> tuple[dict[str, Any], dict[str, Any]]:
    wanted = {"kind": "energibridge", "command": meter, "interval_ms": 200}
    facts = agent.call("facts", {"meter": wanted, "sample_s": 0, "docker": False})
    return facts["meter"], next(p for p in facts["problems"] if p["code"] == "meter-failed")


def test_a_meter_whose_sample_was_slow_once_is_proved_again_and_the_host_stays_fit(
    agent: Any, platform: Path, tmp_path: Path
) -> None:
    once = f"mkdir {tmp_path}/tried 2>/dev/null && {{ {SLOW}; }}"
    meter, problem = meter_problem(agent, agent.make_meter("slow-once", before=once))
    assert meter["ok"] is True
    assert problem["severity"] == "soft"
    assert "failed 1 of 2 times before it gave energy" in problem["message"]


def test_a_meter_whose_samples_are_always_slow_is_refused_with_what_helps_against_that(
    agent: Any, platform: Path
) -> None:
    meter, problem = meter_problem(agent, agent.make_meter("slow", before=SLOW))
    assert (meter["ok"], problem["severity"], len(meter["failures"])) == (False, "hard", 3)
    assert problem["action"].startswith("raise the host's meter.interval_ms")
    assert "modelled" not in problem["action"]


def test_quiet_waits_for_the_minimum_then_for_the_idle_level(agent: Any, platform: Path) -> None:
    agent.take()
    idle = {"cpu_pct": 1.0, "temperature_c": 40.0, "power_w": None}
    asked = {
        "owner": "run-1", "idle": idle, "tolerance": {"cpu_pct": 5, "temperature_c": 2, "power_w": 3},
        "min_s": 1000, "max_s": 2000, "sample_s": 0.05,
    }  # fmt: skip
    answer = agent.call("quiet", asked)
    assert (answer["quiet"], answer["timed_out"], answer["busy"]) == (False, False, False)
    assert answer["why"].endswith("of 1000 s")
    answer = agent.call("quiet", asked | {"min_s": 0})  # 43.5 °C against 40 + 2
    assert answer["quiet"] is False
    assert answer["why"] == "temperature_c is 43.5, idle is 40.0 + 2.0"
    assert answer["timed_out"] is False
    answer = agent.call("quiet", asked | {"min_s": 0, "max_s": 0})
    assert (answer["quiet"], answer["timed_out"]) == (False, True)
    (platform / "sys/class/hwmon/hwmon0/temp2_input").write_text("41900\n")
    answer = agent.call("quiet", asked | {"min_s": 0, "max_s": 0})
    assert (answer["quiet"], answer["timed_out"], answer["why"]) == (True, False, "")
    assert answer["readings"]["power_w"] is None  # unknown: does not block


def test_rest_counts_from_the_end_of_the_last_window(agent: Any, tmp_path: Path) -> None:
    agent.take()
    spec = agent.sh("true")
    ended = agent.run(spec)["command"]["ended"]["mono_s"]
    before = time.monotonic() - ended
    rested = agent.call("quiet", {"owner": "run-1", "sample_s": 0})["rested_s"]
    assert before <= rested <= time.monotonic() - ended
    gate = tmp_path / "gate"
    running = agent.sh(f"mkfifo {gate}; read x < {gate}", trial="002-x")
    agent.call("start", running)
    answer = agent.call("quiet", {"owner": "run-1"})
    assert (answer["busy"], answer["quiet"]) == (True, False)


def test_warm_up_ends_by_itself(agent: Any, gone: Any) -> None:
    agent.take()
    asked = {"owner": "run-1", "action": "start", "seconds": 1.0, "sample_s": 0}
    agent.call("warm", asked)
    pid = json.loads((agent.spool / "warm.json").read_text())["process"]["pid"]
    deadline = time.monotonic() + 30
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    state = agent.call("warm", {"owner": "run-1", "action": "status", "sample_s": 0})
    assert (state["running"], state["elapsed_s"]) == (False, 1.0)
    again = agent.call("warm", asked)
    assert (again["running"], again["elapsed_s"]) == (False, 1.0), "it has done what was asked for"
    assert agent.call("warm", asked | {"seconds": 60.0})["running"] is True


def test_warm_up_starts_once_and_stopped_leaves_no_process_and_rest_starts_then(agent: Any) -> None:
    agent.take()
    asked = {"owner": "run-1", "action": "start", "seconds": 300, "sample_s": 0}
    assert agent.call("warm", asked)["running"] is True
    mark = json.loads((agent.spool / "warm.json").read_text())["process"]
    assert agent.call("warm", asked)["running"] is True
    assert json.loads((agent.spool / "warm.json").read_text())["process"] == mark
    assert agent.call("quiet", {"owner": "run-1", "sample_s": 0})["quiet"] is False
    assert agent.ask("warm", {"owner": "run-2", "action": "stop"})["error"] == "leased"
    before = time.monotonic()
    state = agent.call("warm", {"owner": "run-1", "action": "stop", "sample_s": 0})
    assert state["running"] is False
    assert 0 < state["elapsed_s"] < 60
    assert processes.processes_of(mark, None) == []
    assert {"temperature_c", "power_w", "cpu_pct"} <= set(state)
    again = agent.call("warm", asked)
    assert again["running"] is False, "what was stopped is done: a repeated look begins nothing"
    rested = agent.call("quiet", {"owner": "run-1", "sample_s": 0})["rested_s"]
    assert rested <= time.monotonic() - before


def test_process_that_only_shares_a_pid_is_not_touched() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mark = processes.process_mark(child.pid)
        assert processes.processes_of(mark, None) == [child.pid]
        assert processes.is_alive(mark)
        later = mark | {"start_ticks": mark["start_ticks"] - 1}
        assert processes.processes_of(later, None) == []
        assert not processes.is_alive(later)
        assert processes.processes_of(mark | {"boot": "another"}, None) == []
        assert processes.end_processes(lambda: processes.processes_of(later, None)) == []
        assert child.poll() is None
        assert processes.end_processes(lambda: processes.processes_of(mark, None)) == [child.pid]
        assert child.wait(5) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_processes_are_found_by_the_attempt_s_variable_in_any_session() -> None:
    child = subprocess.Popen(
        ["sleep", "60"],
        start_new_session=True,
        env={"WATTBENCH_ATTEMPT": "/spool/trials/r/001-x/1"},
    )
    try:
        deadline = time.monotonic() + 10
        while processes.processes_of(None, "/spool/trials/r/001-x/1") != [child.pid]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert processes.processes_of(None, "/spool/trials/r/001-x/11") == []
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def nvml(agent: Any, tmp_path: Path) -> None:
    """Two GPUs: a library with NVML's interface and known numbers."""
    agent.environment["WATTBENCH_NVML"] = str(nvml_library.build(tmp_path))


def test_given_gpus_are_recorded_and_the_others_not(agent: Any, platform: Path, nvml: None) -> None:
    assert platform  # a machine of its own: in a container NVML's pids are not this host's
    agent.take()
    script = "echo $CUDA_VISIBLE_DEVICES"
    spec = agent.sh(script, gpus=["GPU-b"], meter={"kind": "nvml", "interval_ms": 100})
    report = agent.run(spec)
    assert report["state"] == "done"
    folder = agent.attempt_folder(spec)
    assert (folder / "stdout.log").read_text() == "GPU-b\n"
    rows = list(csv.DictReader((folder / "nvml.csv").read_text().splitlines()))
    assert list(rows[0])[2:] == [
        "gpu1_energy_mj", "gpu1_power_mw", "gpu1_util_pct", "gpu1_temperature_c",
        "gpu1_sm_clock_mhz", "gpu1_throttle", "gpu1_power_instant_mw", "gpu1_foreign",
    ]  # fmt: skip
    assert [rows[0][c] for c in list(rows[0])[3:]] == ["61500", "97", "55", "1410", "", "", ""]
    assert int(rows[0]["gpu1_energy_mj"]) > 2**32  # a counter of 64 bits
    # The library's counter shows when it was read: at the window's edges, between those of the report.
    edges, command = report["edges"], report["command"]
    read_s = [(command[at]["nvml_mj"]["1"] - 5e9) / 61500 for at in ("started", "ended")]
    moments = [edges["before"]["mono_s"], *read_s, edges["after"]["mono_s"]]
    assert moments == sorted(moments)
    edge = edges["before"]["nvml"]
    assert [(g["index"], g["uuid"], g["throttle"]) for g in edge] == [(1, "GPU-b", None)]
    assert edge[0]["processes"] == 3  # another process's: the trial's own has not begun


def test_levels_of_the_given_gpus_are_read_while_they_are_warmed(agent: Any, nvml: None) -> None:
    one = agent.call("warm", {"sample_s": 0, "gpus": ["GPU-a"]})
    both = agent.call("warm", {"sample_s": 0, "gpus": ["GPU-a", "GPU-b"]})
    assert (one["gpu_power_w"], both["gpu_power_w"]) == (61.5, 123.0)
    assert (one["gpu_temperature_c"], both["gpu_temperature_c"]) == (55, 55)
    assert agent.call("warm", {"sample_s": 0}).get("gpu_power_w") is None


def test_gpu_in_use_or_absent_is_a_hard_problem_only_if_it_is_ours(agent: Any, nvml: None) -> None:
    def problems(*gpus: str) -> list[tuple[str, str]]:
        asked = {"gpus": list(gpus), "meter": {"kind": "nvml"}, "sample_s": 0, "docker": False}
        found = agent.call("facts", asked)["problems"]
        return [(p["code"], p["severity"]) for p in found if p["code"].startswith("gpu")]

    assert problems("GPU-a") == [("gpu-busy", "soft")]
    assert problems("GPU-b") == [("gpu-busy", "hard")]
    assert problems("GPU-a", "GPU-c") == [("gpu-missing", "hard"), ("gpu-busy", "soft")]
    facts = agent.call("facts", {"gpus": ["GPU-a"], "meter": {"kind": "nvml"}, "sample_s": 0.02})
    assert facts["meter"]["columns"] == ["gpu0_energy_mj", "gpu0_power_mw"]
    assert facts["gpu"][0]["memory_bytes"] == 80 << 30
    assert facts["gpu"][0]["driver"] == "999.1"
    # What the checks of a run compare later attempts with.
    known = HostFacts.of({"facts": read_facts(facts, "facts")})
    assert (known.state["driver"], known.state["boot"]) == ("999.1", facts["host"]["boot"])
    assert facts["idle"]["gpu_power_w"] == 61.5


def test_pipe_joins_its_streams_with_a_unix_socket(tmp_path: Path, program: Path) -> None:
    import socket

    path = str(tmp_path / "echo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        pipe = subprocess.Popen(
            [sys.executable, str(program), "pipe", path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        peer, _ = server.accept()
        payload = os.urandom(100_000)
        assert pipe.stdin
        assert pipe.stdout
        pipe.stdin.write(payload)
        pipe.stdin.close()
        with peer:
            received = b"".join(iter(lambda: peer.recv(65536), b""))  # until the half-close
            peer.sendall(received[::-1])
        assert pipe.stdout.read() == payload[::-1]
        pipe.stdout.close()
        assert pipe.wait(10) == 0


@pytest.mark.parametrize(("inode", "whole"), [(0xEFFFFFFC, True), (4026532177, False)])
def test_the_first_pid_namespace_has_the_machine_s_process_ids_though_an_image_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inode: int, whole: bool
) -> None:
    (tmp_path / ".dockerenv").touch()
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to(f"pid:[{inode}]")
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(tmp_path))
    assert sysfs.sees_all_pids() is whole


def test_a_container_whose_pid_namespace_cannot_be_read_has_process_ids_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTBENCH_SYSROOT", str(tmp_path))
    assert sysfs.sees_all_pids()
    (tmp_path / ".dockerenv").touch()
    assert not sysfs.sees_all_pids()
