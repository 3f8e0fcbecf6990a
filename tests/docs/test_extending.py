"""The modules shown in docs/extending.md do what the page says, installed as distributions of their own."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tests.support import extension, simulated_run
from tests.support.wall_meter import Answers, as_json, serving

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
MODULES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
#: Group → module, and the object of it that the entry point names.
GROUPS = {
    group: (module, names)
    for group, module, names in re.findall(
        r'^\[project\.entry-points\."([\w.]+)"\]\n\w+ = "acme_wattbench\.(\w+):?(\w*)"',
        TEXT,
        re.MULTILINE,
    )
}


def test_each_module_of_the_page_is_named_by_an_entry_point_of_it() -> None:
    assert {module for module, _ in GROUPS.values()} == set(MODULES)
    assert set(GROUPS) < set(re.findall(r"^\| `(wattbench\.\w+)` \|", TEXT, re.MULTILINE))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for group, (module, names) in GROUPS.items():
        extension.install(tmp_path, group, module, MODULES[module], names)
    return tmp_path


def output_of(installed: Path, program: str) -> str:
    done = extension.run(installed, "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_check_is_among_all_others(installed: Path) -> None:
    page = extension.run(installed, "-m", "analysis", "findings").stdout
    assert "## window-short\n\nThe window is shorter than the laboratory's rule." in page


METERED = """
import json
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.trials import TrialRow
from wattbench.config.hosts import HostConfig
from wattbench.worker import agent_bundle

assert HostConfig.model_validate({"ssh_conn_id": "a", "meter": {"kind": "plug"}}).meter.kind == "plug"
assert "plug.csv" in agent_bundle.raw_files()

rows = "".join(f"{t},{t},{50e6 * t:.0f}\\n" for t in range(1000, 1070))
mark = lambda t: {"unix_s": t, "mono_s": t}
report = {"state": "done", "rc": 0, "command": {"started": mark(1005.0), "ended": mark(1065.0)}}
raw = RawAttempt(report, {"plug.csv": ("unix_s,mono_s,plug_uj\\n" + rows).encode()})
row = TrialRow(run_id="r", host="h", kind="workload", block=1, position=1, planned_position=1, image="a")
record = evaluate(raw, expected={"meter": "plug", "gpus": []}, plan_row=row)
print(json.dumps([record.row.energy_j, record.row.energy_scope]))
"""


def test_the_meter_is_a_choice_of_hosts_yaml_and_its_joules_count(installed: Path) -> None:
    energy_j, scope = json.loads(output_of(installed, METERED))
    assert (round(energy_j, 6), scope) == (50.0 * 60, "system")


READ_OVER_THE_NETWORK = """
from wattbench.analysis.meters import registry
from wattbench.config.hosts import HostConfig
from wattbench.remote_meters import raw_file, reader_of

host = HostConfig.model_validate({
    "ssh_conn_id": "a",
    "meters": [{"kind": "energibridge", "primary": True}, {"kind": "pdu", "url": "URL"}],
})
(settings,) = host.remote_meters
assert (settings.name, raw_file(settings.kind) in registry.raw_files()) == ("pdu", True)
reader = reader_of(settings)
reader.probe()
sample = reader.sample()
lines = [{"settings": settings.described(reader.units)}]
lines += [{"clock": {"meter": "pdu", "unix_s": t, "ahead_s": 0.0, "trip_s": 0.0}} for t in (0.0, 10.0)]
lines += [{"sample": {"meter": "pdu", "unix_s": float(t), "trip_s": 0.0, "power": sample.power}} for t in range(11)]
raw = "".join(json.dumps(line) + "\\n" for line in lines).encode()
(curve,) = registry.meters()["pdu"].read({"pdu.jsonl": raw}, registry.Edges()).curves
print(curve.domain, round(float(curve.energy_j[-1]), 6))
"""


def test_the_meter_that_the_controller_reads_is_a_choice_of_hosts_yaml_and_its_joules_are_read(
    installed: Path,
) -> None:
    with serving(Answers({"/power": lambda _: as_json(41.5)})) as url:
        program = "import json" + READ_OVER_THE_NETWORK.replace("URL", f"{url}/power")
        assert output_of(installed, program) == "wall 415.0\n"


PLANNED = """
import json
from wattbench.config.experiment import Experiment
from wattbench.workloads import workload_of
from wattbench.workloads.protocol import Place

what = Experiment.model_validate({
    "hosts": ["a"], "reference": "x", "images": {"x": {"ref": "r.example/x:1"}},
    "workload": {"kind": "transcode", "seconds": 9},
})
kind = workload_of(what.workload)
unit = kind.expectation(what.workload).unit
print(json.dumps([kind.argv(what.workload, Place("docker", "cpu"))[0], unit.name, unit.count]))
"""


def test_the_workload_is_a_choice_of_experiments_with_a_unit_of_its_own(installed: Path) -> None:
    assert json.loads(output_of(installed, PLANNED)) == ["ffmpeg", "second of video", 9]


def test_the_report_section_is_on_the_page_and_its_table_among_the_files(
    installed: Path, tmp_path: Path
) -> None:
    design = simulated_run.small(
        hosts={"lab-a": simulated_run.HOSTS["lab-a"]}, failing={}, blocks=2, idle_every=None
    )
    source, out = simulated_run.write(tmp_path / "runs", design), tmp_path / "out"
    done = extension.run(installed, "-m", "analysis", "report", str(source), "--out", str(out))
    assert done.returncode in (0, 1), done.stderr
    page = (out / "index.html").read_text(encoding="utf-8")
    assert '<a href="#electricity-cost">Electricity cost</a>' in page
    assert page.index('id="across"') < page.index('id="electricity-cost"') < page.index('id="size"')
    assert "<p>A kilowatt-hour is taken at 0.30 EUR.</p>" in page
    with (out / "tables" / "electricity_cost.csv").open() as file:
        costs = {row["image"]: float(row["eur_per_1000"]) for row in csv.DictReader(file)}
    with (out / "tables" / "medians.csv").open() as file:
        joules = {row["image"]: float(row["median_j"]) for row in csv.DictReader(file)}
    assert costs == pytest.approx({i: j * 1000 / 3.6e6 * 0.30 for i, j in joules.items()})
