"""Campaigns measured with other tools: small files in the form that each tool documents, with joules by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from wattbench.analysis.audit import importers, mapping
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.audit.discover import discover
from wattbench.analysis.audit.importers import Context, choose
from wattbench.analysis.commands import audit as command


def imported(root: Path) -> Campaign:
    """A folder as its importer reads it."""
    known = importers.installed()
    files = discover(root, known, mapping.Mapping())
    importer = choose(known, files)
    assert importer is not None, files.unread
    return importer.read(files, Context("campaign", mapping.Mapping()))


def write(root: Path, **texts: str) -> Path:
    """Files by path; ``__`` stands for a folder's slash and ``_DOT_`` for a dot."""
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def table(campaign: Campaign) -> pd.DataFrame:
    return pd.DataFrame([vars(r.row) for r in campaign.records]).set_index(["image", "run"])


CODECARBON = (
    "timestamp,project_name,run_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,"
    "cpu_energy,gpu_energy,ram_energy,energy_consumed,country_name,os,codecarbon_version,tracking_mode\n"
)


def test_codecarbon_s_kilowatt_hours_are_joules_that_a_model_may_have_given(tmp_path):
    rows = "".join(
        f"2026-01-05T12:0{i}:00,{project},id-{i},20.0,0.0001,5e-06,42.5,100.0,10.0,"
        f"{cpu},0.000500,0.00005,{cpu + 0.00055},Canada,Linux,2.3.5,machine\n"
        for i, (project, cpu) in enumerate([("bert", 0.0002), ("gpt", 0.0003), ("bert", 0.00021)])
    )
    # The same row twice is one run.
    last = rows.splitlines()[-1] + "\n"
    campaign = imported(write(tmp_path, emissions_DOT_csv=CODECARBON + rows + last))
    trials = table(campaign)
    assert campaign.layout == "codecarbon"
    assert trials.energy_j.tolist() == pytest.approx([2520.0, 2880.0, 2556.0])
    assert trials.package_j.tolist() == pytest.approx([720.0, 1080.0, 756.0])
    assert trials.gpu_j.tolist() == pytest.approx([1800.0] * 3)
    assert set(trials.energy_source) == {"modelled"}
    assert trials.started_at.iloc[0] == "2026-01-05T11:59:40.000Z"
    assert sorted(trials.index) == [("bert", 0), ("bert", 1), ("gpt", 0)]
    assert "column project_name: bert, gpt" in campaign.inferred[0]
    (copy,) = campaign.findings
    assert (copy.evidence["file"], copy.evidence["line"]) == ("emissions.csv", 5)


def test_windows_of_zeus_are_runs_of_their_name(tmp_path):
    log = (
        "start_time,window_name,elapsed_time,gpu0_energy,gpu1_energy\n"
        "1760000000.5,prefill_0,2.0,400.0,410.0\n1760000010.5,decode_0,4.0,900.0,910.0\n"
        "1760000020.5,prefill_1,2.1,402.0,412.0\n1760000030.5,decode_1,4.1,902.0,912.0\n"
    )
    trials = table(imported(write(tmp_path, zeus_DOT_csv=log)))
    assert trials.energy_j.to_dict() == {
        ("prefill", 0): 810.0, ("decode", 0): 1810.0, ("prefill", 1): 814.0, ("decode", 1): 1814.0,
    }  # fmt: skip
    assert trials.duration_s.tolist() == [2.0, 4.0, 2.1, 4.1]
    assert trials.started_at.iloc[0] == "2025-10-09T08:53:20.500Z"


def test_results_of_ml_energy_count_the_whole_benchmark(tmp_path):
    def result(joules: float) -> str:
        whole = {"gpu_energy": {"0": joules, "1": joules + 1}, "time": 12.5}
        steady = {"gpu_energy": {"0": joules / 2}, "time": 6.0}
        return json.dumps(
            {
                "completed": 64,
                "steady_state_measurement": steady,
                "entire_benchmark_measurement": whole,
            }
        )

    write(
        tmp_path,
        qwen__run_1__results_DOT_json=result(100),
        qwen__run_2__results_DOT_json=result(110),
    )
    write(tmp_path, llama__run_1__results_DOT_json=result(200))
    write(tmp_path, llama__run_2__results_DOT_json='{"entire_benchmark_measurement": ')
    campaign = imported(tmp_path)
    assert table(campaign).energy_j.to_dict() == {
        ("llama", 1): 401.0,
        ("qwen", 1): 201.0,
        ("qwen", 2): 221.0,
    }
    (damaged,) = campaign.findings
    assert damaged.evidence["file"] == "llama/run_2/results.json"


def test_exports_of_the_green_metrics_tool_add_their_intervals_up(tmp_path):
    def export(cpu_uj: int, wall: bool) -> str:
        rows = [
            [
                "Package_0",
                1_760_000_000_000_000 + 100_000 * i,
                "cpu_energy_rapl_msr_component",
                cpu_uj,
                "uJ",
            ]
            for i in range(11)
        ]
        rows += [["[SYSTEM]", rows[0][1], "cpu_utilization_procfs_system", 4000, "Ratio"]]
        if wall:
            rows += [
                ["[MACHINE]", r[1], "psu_energy_ac_mcp_machine", 9_000_000, "uJ"] for r in rows[:11]
            ]
        return json.dumps({"success": True, "data": rows})

    write(
        tmp_path,
        a__run_1_DOT_json=export(2_000_000, False),
        b__run_1_DOT_json=export(2_000_000, True),
    )
    csv = "detail_name,time,metric,value,unit\n" + "".join(
        f"Package_0,{1_760_000_100_000_000 + 100_000 * i},cpu_energy_rapl_msr_component,3000,mJ\n"
        for i in range(11)
    )
    write(tmp_path, c__run_1_DOT_csv=csv)
    trials = table(imported(tmp_path))
    assert trials.energy_j.to_dict() == pytest.approx(
        {("a", 1): 22.0, ("b", 1): 99.0, ("c", 1): 33.0}
    )
    assert trials.energy_scope.tolist() == ["package", "system", "package"]
    assert trials.duration_s.tolist() == pytest.approx([1.0] * 3)


def test_telemetry_of_aiperf_is_integrated_for_each_gpu(tmp_path):
    def telemetry(power: str, watts: float) -> str:
        lines = [
            json.dumps(
                {
                    "timestamp_ns": 1_760_000_000_000_000_000 + 500_000_000 * i,
                    "dcgm_url": "http://localhost:9401/metrics",
                    "gpu_index": gpu,
                    "gpu_model_name": "H100",
                    "telemetry_data": {
                        power: watts + 100 * gpu,
                        "gpu_utilization": 80.0 * (gpu == 1),
                    },
                }
            )
            for i in range(21)
            for gpu in (0, 1)
        ]
        return "\n".join([*lines, '{"cut": ']) + "\n"

    write(tmp_path, small__gpu_telemetry_export_DOT_jsonl=telemetry("gpu_power_usage", 200))
    write(tmp_path, large__gpu_telemetry_export_DOT_jsonl=telemetry("nvidia_power_usage", 300))
    campaign = imported(tmp_path)
    trials = table(campaign)
    # Ten seconds of constant power of two GPUs.
    assert trials.energy_j.to_dict() == pytest.approx({("large", 0): 7000.0, ("small", 0): 5000.0})
    assert trials.duration_s.tolist() == pytest.approx([10.0, 10.0])
    assert {f.evidence["line"] for f in campaign.findings} == {43}
    assert campaign.records[0].series["gpu1_usage"]["max"] == 80.0


def inferencex(conc: int, joules: dict[str, float], *reasons: str) -> tuple[str, str]:
    """A result and its power validation, with the keys that InferenceX's scripts write."""
    total, seconds = sum(joules.values()), 20.0
    valid = not reasons
    power = {"avg_total_gpu_power_w": total / seconds, "total_gpu_energy_j": total} if valid else {}
    result = {"hw": "h200", "tp": 2, "ep": 1, "conc": conc, "model": "m", "framework": "vllm",
              "precision": "fp8", "tput_per_gpu": 900.5, "power_valid": int(valid), **power}  # fmt: skip
    validation = {
        "schema_version": 1, "power_valid": valid, "reasons": list(reasons),
        "telemetry_source": "/workspace/gpu_metrics.csv",
        "benchmark_window": {"start_time_unix": 1_780_000_000.0 + 100 * conc, "end_time_unix": 0,
                             "integration_duration_s": seconds},
        "per_gpu_energy_j": joules, "metrics": {},
    }  # fmt: skip
    return json.dumps(result, indent=2), json.dumps(validation, indent=2)


def test_inferencex_results_count_each_gpu_over_the_benchmark_s_window(tmp_path):
    for conc, joules in ((4, {"0": 6000.0, "1": 6100.5}), (64, {"0": 12000.0, "1": 12500.0})):
        result, validation = inferencex(conc, joules)
        name = f"m_1k1k_fp8_vllm_conc{conc}_h200_0"
        (tmp_path / f"agg_{name}.json").write_text(result)
        (tmp_path / f"power_validation_{name}.json").write_text(validation)
    result, validation = inferencex(8, {"0": 1.0}, "expected_gpu_count_mismatch")
    (tmp_path / "agg_short.json").write_text(result)
    (tmp_path / "power_validation_short.json").write_text(validation)
    alone, _ = inferencex(16, {"0": 5000.0, "1": 5000.0})
    (tmp_path / "agg_alone.json").write_text(alone)
    (tmp_path / "gpu_metrics.csv").write_text("timestamp, index, power.draw [W]\n")
    (tmp_path / "agg_broken.json").write_text('{"hw": "h200", "tput_per_gpu": ')
    campaign = imported(tmp_path)
    trials = table(campaign).reset_index().set_index("image")
    assert campaign.layout == "inferencex"
    assert trials.energy_j.to_dict() == {
        "conc4": 12100.5, "conc64": 24500.0, "conc16": 10000.0, "conc8": 1.0,
    }  # fmt: skip
    assert trials.duration_s.to_dict()["conc16"] == trials.duration_s["conc4"] == 20.0
    assert trials.energy_scope["conc4"] == "gpu"
    assert trials.started_at["conc4"] == "2026-05-28T20:33:20.000Z"
    assert trials.status["conc8"] == "failed"
    assert "expected_gpu_count_mismatch" in trials.reason["conc8"]
    assert "conc" in campaign.inferred[0]
    assert "1 files of GPU samples" in campaign.inferred[1]
    assert [f.evidence["file"] for f in campaign.findings] == ["agg_broken.json"]


@pytest.mark.parametrize("units", [True, False])
def test_logs_of_nvidia_smi_are_integrated_over_their_own_times(tmp_path, units):
    header = "timestamp, index, power.draw [W], utilization.gpu [%]\n"
    watts = [100.0, 200.0, 300.0, 200.0]
    rows = "".join(
        f"2026/01/05 12:00:0{i}.500, 0, {w:.2f}{' W' if units else ''}, 50{' %' if units else ''}\n"
        for i, w in enumerate(watts)
    )
    bad = "2026/01/05 12:00:04.500, 0, [N/A], 50 %\n"
    write(tmp_path, bert__run_3_DOT_csv=header + rows + bad)
    campaign = imported(tmp_path)
    trials = table(campaign)
    # Trapezoids: 150 + 250 + 250 J.
    assert trials.energy_j.to_dict() == {("bert", 3): 650.0}
    assert trials.duration_s.tolist() == [3.0]
    assert [f.evidence["line"] for f in campaign.findings] == [6]


def test_perf_stat_s_joules_are_read_from_every_form_of_its_output(tmp_path):
    csv = (
        "# started on Mon Jan  5 12:00:00 2026\n\n"
        "123.45,Joules,power/energy-pkg/,10003210123,100.00,,\n6.50,Joules,power/energy-ram/,10003210123,100.00,,\n"
        "80.00,Joules,power/energy-cores/,10003210123,100.00,,\n"
    )
    sockets = (
        "S0;1;50.25;Joules;power/energy-pkg/;5000000000;100.00;;\n"
        "S1;1;60.25;Joules;power/energy-pkg/;5000000000;100.00;;\n"
    )
    intervals = "".join(
        f"     {i}.000123456,10.50,Joules,power/energy-pkg/,1000000000,100.00,,\n"
        for i in range(1, 5)
    )
    plain = (
        " Performance counter stats for 'system wide':\n\n          1,234.50 Joules power/energy-pkg/\n\n"
        "      20.004567890 seconds time elapsed\n"
    )
    uncounted = "<not supported>,Joules,power/energy-pkg/,0,100.00,,\n"
    write(tmp_path, csv__1_DOT_txt=csv, sockets__1_DOT_txt=sockets, intervals__1_DOT_csv=intervals)
    write(tmp_path, plain__1_DOT_log=plain, none__1_DOT_txt=uncounted)
    campaign = imported(tmp_path)
    trials = table(campaign)
    joules = trials.energy_j.dropna().to_dict()
    assert joules == pytest.approx(
        {("csv", 1): 129.95, ("sockets", 1): 110.5, ("intervals", 1): 42.0, ("plain", 1): 1234.5}
    )
    seconds = trials.duration_s.dropna().to_dict()
    assert seconds == pytest.approx(
        {
            ("csv", 1): 10.003210123,
            ("sockets", 1): 5.0,
            ("intervals", 1): 4.000123456,
            ("plain", 1): 20.00456789,
        }
    )
    assert trials.status.to_dict()["none", 1] == "failed"
    assert [f.evidence["file"] for f in campaign.findings] == ["none/1.txt"]


PERF = "     {at}            {value} Joules power/energy-pkg/\n"


@pytest.mark.parametrize(
    ("text", "joules", "seconds"),
    [
        (" 1.234,50 Joules power/energy-pkg/\n\n 20,004567890 seconds time elapsed\n", [1234.5], 20.004567890),
        ("330,50 Joules power/energy-pkg/\n\n 10,5 +- 0,1 seconds time elapsed  ( +-  0,21% )\n", [330.5], 10.5),
        ("12,50;Joules;power/energy-pkg/;10000000000;100,00;;\n", [12.5], 10.0),
        ("12,50,Joules,power/energy-pkg/,10000000000,100,00,,\n", [12.5], 10.0),
        ("".join(PERF.format(at=f"{i}.000000000", value="10.50") for i in (1, 2, 3)), [31.5], 3.0),
        ("S0        1      50.25 Joules power/energy-pkg/\nS1        1      60.25 Joules power/energy-pkg/\n"
         " 5.000000000 seconds time elapsed\n", [110.5], 5.0),
        ('{"counter-value" : "12.500000", "unit" : "Joules", "event" : "power/energy-pkg/", '
         '"event-runtime" : 10000000000, "pcnt-running" : 100.00}\n', [12.5], 10.0),
        ("".join(f'{{"interval": {i}.0, "counter-value": "2.5", "unit": "Joules", '
                 '"event": "power/energy-pkg/"}\n' for i in (1, 2)), [5.0], 2.0),
        ("".join(f"# started on Mon Jan  5 12:00:{i} 2026\n\n Performance counter stats for './a':\n\n"
                 f"  {i}.25 Joules power/energy-pkg/\n  2.5 Joules power/energy-ram/\n\n"
                 "  5.0 seconds time elapsed\n" for i in (10, 20)), [12.75, 22.75], 5.0),
        ("".join(f"{i}.25,Joules,power/energy-pkg/,5000000000,100.00,,\n" for i in (10, 20)), [10.25, 20.25], 5.0),
    ],
)  # fmt: skip
def test_perf_stat_s_numbers_are_read_in_any_locale_and_form_and_appended_runs_count_apart(
    tmp_path, text, joules, seconds
):
    trials = table(imported(write(tmp_path, a__1_DOT_txt=text)))
    assert trials.energy_j.tolist() == pytest.approx(joules)
    assert trials.duration_s.tolist() == pytest.approx([seconds] * len(joules))
    assert trials.status.tolist() == ["valid"] * len(joules)


def smi(header: str, *identity: str) -> str:
    """Ten seconds of a GPU of 100 W, the next one of 200 W, …; rows of one loop are milliseconds apart."""
    rows = [
        f"2026/01/05 12:00:{second:02d}.{5 * gpu:03d}, {name}{100.0 * (gpu + 1):.2f} W\n"
        for second in range(11)
        for gpu, name in enumerate(identity)
    ]
    return f"timestamp, {header}power.draw.instant [W]\n" + "".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        smi("", "", ""),
        smi("uuid, ", "GPU-aa, ", "GPU-bb, "),
        smi("pci.bus_id, ", "00000000:01:00.0, ", "00000000:41:00.0, "),
        smi("name, index, ", "H100, 0, ", "H100, 1, "),
    ],
    ids=["order", "uuid", "bus", "index"],
)
def test_rows_of_several_gpus_are_distinguished_by_any_identity_and_by_their_order(tmp_path, text):
    trials = table(imported(write(tmp_path, bert__run_1_DOT_csv=text)))
    assert trials.energy_j.tolist() == pytest.approx([3000.0])
    # Which rows are whose is not known where loops differ.
    if "timestamp, power" in text:
        lines = text.splitlines(keepends=True)
        trials = table(
            imported(write(tmp_path, bert__run_1_DOT_csv="".join(lines[:6] + lines[7:])))
        )
        assert trials.status.tolist() == ["failed"]
        assert "index or uuid" in trials.reason.iloc[0]


def test_lines_that_can_t_be_used_are_one_finding_per_file(tmp_path):
    text = smi("index, ", "0, ").replace("100.00 W", "[N/A]")
    campaign = imported(write(tmp_path, bert__run_1_DOT_csv=text))
    (finding,) = campaign.findings
    assert (finding.evidence["line"], finding.evidence["lines"]) == (2, list(range(2, 13)))


@pytest.mark.parametrize(
    ("names", "treatments"),
    [
        (["bert_fp16", "bert_fp32"] * 2, {"bert_fp16": 2, "bert_fp32": 2}),
        (["batch_8", "batch_16", "batch_8", "batch_16"], {"batch_8": 2, "batch_16": 2}),
        (["fp16_0", "fp32_0", "fp16_1", "fp32_1"], {"fp16": 2, "fp32": 2}),
    ],
)
def test_a_number_in_a_window_s_name_is_a_run_s_only_where_no_name_comes_back(
    tmp_path, names, treatments
):
    rows = "".join(f"{1_760_000_000 + 10 * i},{n},2.0,400.0\n" for i, n in enumerate(names))
    log = "start_time,window_name,elapsed_time,gpu0_energy\n" + rows
    trials = table(imported(write(tmp_path, zeus_DOT_csv=log))).reset_index()
    assert trials.image.value_counts().to_dict() == treatments


def test_codecarbon_before_version_2_has_the_sum_of_all_parts(tmp_path):
    header = (
        "timestamp,experiment_id,project_name,duration,emissions,energy_consumed,country_name\n"
    )
    rows = "".join(
        f"2021-03-01T12:0{i}:00,e{i},{project},20.0,0.0001,0.0002,Canada\n"
        for i, project in enumerate(("bert", "gpt"))
    )
    trials = table(imported(write(tmp_path, emissions_DOT_csv=header + rows)))
    assert trials.energy_j.to_dict() == pytest.approx({("bert", 0): 720.0, ("gpt", 0): 720.0})
    assert set(trials.energy_source) == {"modelled"}


@pytest.mark.parametrize(
    ("tasks", "treatments"),
    [
        (["load", "infer"] * 3, {"load", "infer"}),
        # CodeCarbon draws a name for a task without one.
        ([f"{i:032x}" for i in range(6)], {"tasks"}),
    ],
)
def test_tasks_of_codecarbon_are_treatments_where_their_names_come_back(
    tmp_path, tasks, treatments
):
    rows = "".join(
        f"{task},2026-01-05T12:0{i}:00,p,id-{i},20.0,0.0001,5e-06,42.5,0.0,10.0,0.0002,0.0,0.00005,"
        "0.00025,Canada,Linux,3.0.4,machine\n"
        for i, task in enumerate(tasks)
    )
    folder = tmp_path / "tasks"
    text = "task_name," + CODECARBON + rows
    campaign = imported(write(folder, emissions_base_ab_DOT_csv=text))
    assert set(table(campaign).reset_index().image) == treatments


def test_powerstat_s_means_count_for_their_interval_and_its_averages_do_not(tmp_path):
    head = "  Time    User  Nice   Sys  Idle    IO  Run Ctxt/s  IRQ/s Fork Exec Exit  Watts\n"
    rows = "".join(
        f"23:59:5{8 + i}   1.6   0.0   0.6  97.7   0.0    1    710    543    0    0    0  {w:5.2f} \n"
        for i, w in enumerate([10.0, 20.0])
    ) + "00:00:00   1.6   0.0   0.6  97.7   0.0    1    710    543    0    0    0  30.00 \n"  # fmt: skip
    text = (
        "Running for 60.0 seconds (60 samples at 1.0 second intervals).\n\n" + head + rows
        + "-------- ----- ----- ----- ----- ----- ---- ------ ------ ---- ---- ---- ------\n"
        " Average   1.6   0.0   0.6  97.7   0.0  1.0  710.0  543.0  0.0  0.0  0.0  20.00 \n"
    )  # fmt: skip
    trials = table(imported(write(tmp_path, idle_machine__run_1_DOT_txt=text)))
    assert trials.energy_j.tolist() == [60.0]
    assert trials.duration_s.tolist() == [3.0]
    assert trials.started_at.isna().all()


def test_turbostat_s_summary_rows_count_and_single_cpus_do_not(tmp_path):
    head = "Time_Of_Day_Seconds\tCore\tCPU\tAvg_MHz\tBusy%\tPkgWatt\tRAMWatt\n"
    text = "".join(
        head + f"1760000000.{5}\t-\t-\t100\t5.00\t{w}\t2.00\n".replace("0.5", f"{i}.5")
        + f"1760000000.5\t0\t0\t100\t5.00\t{w}\t2.00\n1760000000.5\t1\t1\t90\t4.00\t\t\n"
        for i, w in enumerate([10.0, 20.0, 30.0])
    )  # fmt: skip
    one_shot = "Avg_MHz\tBusy%\tPkg_J\tRAM_J\n1200\t40.00\t150.50\t9.50\n12.345678 sec\n"
    timeless = "Core\tCPU\tPkgWatt\n-\t-\t10.0\n"
    write(
        tmp_path, sampled__1_DOT_log=text, command__1_DOT_txt=one_shot, timeless__1_DOT_txt=timeless
    )
    trials = table(imported(tmp_path))
    assert trials.energy_j.dropna().to_dict() == pytest.approx(
        {("sampled", 1): 66.0, ("command", 1): 160.0}
    )
    assert trials.duration_s.to_dict()["command", 1] == 12.345678
    assert trials.status.to_dict()["timeless", 1] == "failed"


def test_every_layout_stands_in_the_help_and_in_the_documentation(capsys):
    parser = command.argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["audit", "--help"])
    shown = capsys.readouterr().out
    page = (Path(__file__).parents[3] / "docs" / "auditing.md").read_text(encoding="utf-8")
    for importer in importers.installed():
        assert f"  {importer.layout} " in shown
        assert f"| `{importer.layout}` | {importer.recognised_by} |" in page
