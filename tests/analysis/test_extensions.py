"""Checks, meters, importers and report sections of other distributions: one file and an entry point, nothing else is touched."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.support import extension, simulated_run
from tests.support.simulated_rapl import Level, Machine, Meter
from wattbench.analysis.model.records import Record
from wattbench.analysis.model.trials import TrialRow

pytestmark = pytest.mark.slow

CHECK = """
from dataclasses import replace

from wattbench.analysis.checks import Found, check, code
from wattbench.analysis.model.finding_codes import Severity

SHORT = code(
    "window-short", Severity.ERROR,
    meaning="The window is shorter than the laboratory's rule.",
    why="Short windows are dominated by their edges.",
    action="Raise the iterations.",
)


@check(SHORT, fine="windows are long", example=lambda r: replace(r, row=replace(r.row, duration_s=1.0)))
def window_short(record):
    if record.row.duration_s is not None and record.row.duration_s < 5:
        yield Found(f"the window has {record.row.duration_s:.1f} s", {"file": record.row.raw})
"""


def campaign(folder: Path) -> Path:
    """Logs of two images, one of them of short windows."""
    for image, seconds in (("long", 12.0), ("short", 3.0)):
        (folder / image).mkdir(parents=True)
        for run in range(3):
            machine = Machine([Level("work", seconds, 80.0)], seed=run)
            (folder / image / f"{run}.csv").write_bytes(Meter().log(machine, run))
    return folder


def test_a_check_of_another_distribution_is_in_trials_findings_and_documentation(
    tmp_path: Path,
) -> None:
    extension.install(tmp_path, "wattbench.checks", "window_short", CHECK)
    folder, out = campaign(tmp_path / "campaign"), tmp_path / "out"
    done = extension.run(tmp_path, "-m", "analysis", "audit", str(folder), "--out", str(out))
    assert done.returncode == 1, done.stderr
    with (out / "trials.csv").open() as file:
        reasons = {
            row["raw"]: row["findings"] for row in csv.DictReader(file) if row["image"] == "short"
        }
    assert len(reasons) == 3
    assert all("window-short" in codes.split() for codes in reasons.values())
    findings = json.loads((out / "findings.json").read_text())
    own = [f for f in findings if f["code"] == "window-short"]
    assert {f["evidence"]["file"] for f in own} == set(reasons)
    assert {f["action"] for f in own} == {"Raise the iterations."}
    page = extension.run(tmp_path, "-m", "analysis", "findings").stdout
    assert "## window-short\n\nThe window is shorter than the laboratory's rule." in page


def test_a_check_that_cannot_be_imported_is_one_warning_that_names_it(tmp_path: Path) -> None:
    extension.install(tmp_path, "wattbench.checks", "broken_check", "import absent_module\n")
    done = extension.run(tmp_path, "-m", "analysis", "findings")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert "broken_check" in done.stderr
    assert "absent_module" in done.stderr
    assert "## device-mismatch" in done.stdout


def test_findings_of_a_check_that_is_not_installed_here_are_still_read(tmp_path: Path) -> None:
    finding = {
        "code": "window-short", "verdict": "found", "severity": "error", "subject": "run",
        "message": "the window has 3.0 s", "evidence": {},
    }  # fmt: skip
    row = TrialRow(
        run_id="r", host="h", kind="workload", block=1, position=1, planned_position=1, image="a"
    )
    stored = Record(row).to_dict() | {"findings": [finding]}
    program = (
        "import json, sys; from wattbench.analysis.model.findings import dump\n"
        "from wattbench.analysis.model.records import Record\n"
        "print(dump(Record.from_dict(json.loads(sys.argv[1])).findings))"
    )
    done = extension.run(tmp_path, "-c", program, json.dumps(stored))
    assert json.loads(done.stdout)[0]["message"] == "the window has 3.0 s", done.stderr


METER = '''
from wattbench.analysis.meters.curves import Curve
from wattbench.analysis.meters.reading import Reading, read_table
from wattbench.analysis.meters.registry import Device, Meter, meter


@meter
class Plug(Meter):
    """A wall plug's counter, and a GPU's."""

    kind = "plug"
    files = ("plug.csv",)
    rank = 5

    def read(self, raw, edges):
        if not raw.get("plug.csv"):
            return None
        table, notes = read_table(raw["plug.csv"], "plug.csv")
        time_s = table["unix_s"].to_numpy()
        curves = tuple(
            Curve(name, "plug", time_s, (table[column] - table[column][0]).to_numpy() / 1e3, (column,))
            for name, column in (("system", "plug_mj"), ("gpu0", "gpu_mj"))
        )
        return Reading("plug", curves, time_s, {}, tuple(notes))

    def devices(self, edges, series):
        hot = (edges.get("after") or {}).get("plug_hot")
        return () if hot is None else (Device("gpu0", slowed_by=("the plug is hot",) if hot else ()),)
'''

EVALUATE = """
import json
from wattbench.analysis import checks
from wattbench.analysis.meters import registry
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.trials import TrialRow

assert "plug.csv" in registry.raw_files()
rows = "".join(f"{t},{t},{50_000 * t},{20_000 * t}\\n" for t in range(1000, 1070))
mark = lambda t: {"unix_s": t, "mono_s": t}
report = {
    "state": "done", "rc": 0, "command": {"started": mark(1005.0), "ended": mark(1065.0)},
    "edges": {"before": {"plug_hot": False}, "after": {"plug_hot": True}},
}
raw = RawAttempt(report, {"plug.csv": ("unix_s,mono_s,plug_mj,gpu_mj\\n" + rows).encode()})
row = TrialRow(run_id="r", host="h", kind="workload", block=1, position=1, planned_position=1, image="a")
record = evaluate(raw, expected={"meter": "plug", "gpus": ["0"], "device": "cuda"}, plan_row=row)
found = {f.code: f.message for f in checks.check_trial(record) if f.verdict == "found"}
print(json.dumps([record.row.energy_j, record.row.gpu_j, record.row.energy_scope, found.get("throttled")]))
"""


def test_a_meter_of_another_distribution_counts_and_its_throttling_is_found(tmp_path: Path) -> None:
    extension.install(tmp_path, "wattbench.meters", "plug_meter", METER)
    done = extension.run(tmp_path, "-c", EVALUATE)
    assert done.returncode == 0, done.stderr
    energy_j, gpu_j, scope, throttled = json.loads(done.stdout)
    assert (round(energy_j, 6), round(gpu_j, 6), scope) == (4200.0, 1200.0, "system+gpu")
    assert throttled == "gpu0 reports slowed clocks: the plug is hot"


IMPORTER = '''
from wattbench.analysis.audit.campaign import Campaign
from wattbench.analysis.model.records import Domain, Record
from wattbench.analysis.model.trials import TrialRow


class Notebook:
    """A laboratory's notebook: a line per run with treatment, number, joules and seconds."""

    layout = "notebook"
    recognised_by = "`*.log` that begins with `NOTEBOOK`"
    rank = 5
    leads = frozenset({"notebook"})

    def claims(self, path, head):
        return "notebook" if head.startswith(b"NOTEBOOK") else None

    def read(self, files, context):
        records = []
        for path in files.of("notebook"):
            for number, line in enumerate((files.root / path).read_text().splitlines()[1:], start=2):
                image, run, joules, seconds = line.split()
                row = TrialRow(
                    run_id=context.name, host="", kind="workload", block=None, position=None,
                    planned_position=None, image=image, run=int(run), attempt=1, status="valid",
                    energy_j=float(joules), energy_scope="system", energy_source="measured",
                    duration_s=float(seconds),
                )
                domain = Domain("system", "notebook", float(joules), 1.0, counted=True)
                records.append(Record(row, domains=(domain,), log={"file": path, "line": number}))
        return Campaign(context.name, self.layout, tuple(records), repaired_rule="every line")


IMPORTER = Notebook
'''


def test_an_importer_of_another_distribution_reads_a_layout_and_stands_in_the_help(
    tmp_path: Path,
) -> None:
    (tmp_path / "site").mkdir()
    source = IMPORTER.replace("IMPORTER = Notebook", "IMPORTER = Notebook()")
    extension.install(tmp_path / "site", "wattbench.importers", "notebook_importer", source)
    lines = [f"{i} {n} {j + n} 10.0" for i, j in (("a", 100), ("b", 120)) for n in range(8)]
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "runs.log").write_text("\n".join(["NOTEBOOK", *lines]) + "\n")
    out = tmp_path / "out"
    argv = ("-m", "analysis", "audit", str(tmp_path / "campaign"), "--out", str(out))
    done = extension.run(tmp_path / "site", *argv)
    assert done.returncode in (0, 1), done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["layout"], summary["status"]) == ("notebook", {"valid": 16})
    assert "uses the least energy" in summary["answers"]["repaired"]
    assert summary["answers"]["repaired"].startswith("a ")
    assert (
        "notebook" in extension.run(tmp_path / "site", "-m", "analysis", "audit", "--help").stdout
    )
    wrong = extension.run(tmp_path / "site", *argv, "--layout", "derived")
    assert wrong.returncode == 2
    assert "of 'notebook'" in wrong.stderr


def test_an_importer_that_cannot_be_loaded_is_one_warning_that_names_it(tmp_path: Path) -> None:
    extension.install(tmp_path, "wattbench.importers", "broken_importer", "import absent_module\n")
    folder, out = campaign(tmp_path / "campaign"), tmp_path / "out"
    done = extension.run(tmp_path, "-m", "analysis", "audit", str(folder), "--out", str(out))
    assert done.returncode in (0, 1), done.stderr
    named = [line for line in done.stderr.splitlines() if "broken_importer" in line]
    assert len(named) == 1
    assert "absent_module" in named[0]


def test_a_report_section_that_cannot_be_imported_is_one_warning_that_names_it(
    tmp_path: Path,
) -> None:
    extension.install(tmp_path, "wattbench.report_sections", "broken_section", "import absent\n")
    program = "from wattbench.analysis.report import registry\nprint(len(registry.sections()))"
    done = extension.run(tmp_path, "-c", program)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert "broken_section" in done.stderr
    assert int(done.stdout) > 5


SAME_TABLE = """
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report.registry import Section, section


@section
class Second(Section):
    name = "second"
    title = "Second"

    def tables(self, study):
        import pandas
        yield Table("pairs", "Pairs", "", pandas.DataFrame({"a": [1]}))
"""


def test_a_section_cannot_replace_the_table_of_another_one(tmp_path: Path) -> None:
    extension.install(tmp_path, "wattbench.report_sections", "second_section", SAME_TABLE)
    design = simulated_run.small(hosts={"lab-a": simulated_run.HOSTS["lab-a"]}, failing={})
    source = simulated_run.write(tmp_path / "runs", design)
    argv = ("-m", "analysis", "report", str(source), "--out", str(tmp_path / "out"))
    done = extension.run(tmp_path, *argv)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "report section 'second': its 'pairs' is made by 'hosts' too; rename it or uninstall the section"
    )
