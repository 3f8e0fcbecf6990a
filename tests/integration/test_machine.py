"""The machine of a live run: a changed cap, another process on a GPU, an idle GPU, and wall meters of known truth.

Two runs at once. On the first virtual host stand a tree of kernel files and a library with NVML's interface, where the
agent's interpreter points at them; the trials' own program changes what they show. The second host has wall meters,
HTTP servers of this process.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.conftest import Lab
from tests.support import nvml_library
from tests.support.wall_meter import Answers, Device, Load, Prometheus, serving, shelly
from wattbench.analysis.model.records import Domain, Record
from wattbench.dag_runs import Run
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

# ── a machine of files ──────────────────────────────────────────────────────────────────────────

MACHINE = "it-machine"
HOME = "/opt/it-machine"
#: What the library's two GPUs are like while no trial runs.
RESTING = "processes_b 0\nusage_a 0\nusage_b 0\nripple_mw 40\n"
ZONE = "sys/class/powercap/intel-rapl:0"
FILES = {
    "standing": RESTING,
    "state": RESTING,
    f"root/{ZONE}/name": "package-0\n",
    f"root/{ZONE}/constraint_0_name": "long_term\n",
    f"root/{ZONE}/constraint_0_power_limit_uw": "150000000\n",
    "root/.dockerenv": "",
    "python": f"""#!/bin/sh
export WATTBENCH_SYSROOT={HOME}/root WATTBENCH_NVML={HOME}/libnvidia-ml.so NVML_STATE={HOME}/state
exec python3 "$@"
""",
}
#: The rest of the tree is the host's own; NVML's process ids are those of the host.
LINKS = {
    **{f"root/{path}": f"/{path}" for path in (
        "proc/1", "proc/cmdline", "proc/cpuinfo", "proc/meminfo", "proc/stat", "proc/sys", "proc/vmstat", "sys/fs",
        "sys/devices", "sys/kernel",
    )},
    "root/proc/self/ns/pid": f"pid:[{0xEFFFFFFC}]",
}  # fmt: skip
#: Works on both GPUs, and in the first attempt of its trial does what its image is named after.
PROGRAM = """\
import os, pathlib, sys, time
home, image = pathlib.Path(sys.argv[1]), sys.argv[2]
cap = home / "root/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw"
attempt = pathlib.Path(os.environ["WATTBENCH_ATTEMPT"])
first = attempt.name == "1" and attempt.parent.name[:3].isdigit()  # of a trial, not the probe of the image
used_b = 0 if image == "never-both" or (image == "one-gpu" and first) else 97

def show(**values):
    lines = [f"{name} {value}\\n" for name, value in values.items()]
    (home / "new").write_text((home / "standing").read_text() + "".join(lines))  # of a name the last counts
    os.replace(home / "new", home / "state")

def until_sampled(rows=10):
    rows += len((attempt / "nvml.csv").read_text().splitlines())
    while len((attempt / "nvml.csv").read_text().splitlines()) < rows:
        time.sleep(0.02)

mine = {"pid": os.getpid(), "usage_a": 97, "usage_b": used_b}
try:
    show(**mine)
    until_sampled()
    if image == "intruder" and first:
        show(**mine | {"pid": (home / "intruder").read_text().strip()})
    if image == "cap" and first:
        cap.write_text("120000000\\n")
        (home / "standing").write_text((home / "standing").read_text() + "limit_mw 300000\\n")
        show(**mine)
    until_sampled()
finally:
    show()
print("processed 500 documents")
"""
IMAGES = ("both", "cap", "intruder", "one-gpu", "never-both")


def furnish(lab: Lab, folder: Path) -> None:
    """Put tree, library and interpreter on the first host, and start the process that will be the intruder."""
    library = nvml_library.build(folder).read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        files = {name: text.encode() for name, text in FILES.items()}
        for name, data in (files | {"libnvidia-ml.so": library}).items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name, target in LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    lab.in_container(0, "mkdir", "-p", HOME)
    container = docker.from_env().containers.get(lab.bed.hosts[0].container)
    assert container.put_archive(HOME, packed.getvalue())
    begin = f"sleep 3600 >/dev/null 2>&1 & echo $! >{HOME}/intruder; chown -R bench {HOME}"
    lab.in_container(0, "sh", "-c", begin)


@pytest.fixture(scope="module")
def machine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run on the machine of files, begun."""
    furnish(lab, tmp_path_factory.mktemp("nvml"))
    host = {
        "ssh_conn_id": "it_machine", "python": f"{HOME}/python", "spool": f"/var/spool/wattbench/{MACHINE}",
        "gpus": ["GPU-a", "GPU-b"], "meter": {"kind": "nvml", "interval_ms": 100},
        "expect": {"gpu.power_limit_w": 400, "rapl.package.long_term_w": 150},
    }  # fmt: skip
    lab.add_hosts({MACHINE: host}, {"it_machine": lab.connection(0)})
    (lab.config / "experiments/gpu_work.py").write_text(PROGRAM)
    lab.write_experiment(
        MACHINE, hosts=[MACHINE], device="cuda", reference="both",
        workload={
            "kind": "command", "files": {"/bench/gpu_work.py": "gpu_work.py"},
            "unit": {"name": "document", "pattern": r"processed (\d+)"},
        },
        images={
            name: {"runtime": "process", "command": ["python3", "/bench/gpu_work.py", HOME, name]}
            for name in IMAGES
        },
    )  # fmt: skip
    yield lab.trigger(MACHINE, blocks=1)
    lab.in_container(0, "sh", "-c", f"kill $(cat {HOME}/intruder); rm -rf {HOME}")


# ── wall meters ─────────────────────────────────────────────────────────────────────────────────

WALLED = "it-walled"
#: Power alternates between these, W, after each STEP_S: a meter that lags by as much shows one for the other.
LOW_W, HIGH_W, STEP_S = 40.0, 240.0, 3.0
#: By this share of its first gain a plug that drifts shows less each second, down to the least.
DRIFT_PER_S, LEAST = 0.03, 0.02
#: How far the clock of the server that has scraped it is ahead.
AHEAD_S = 5.0
#: Path of a plug of Shelly's second generation.
STATUS = "/rpc/Switch.GetStatus"


def square(from_s: float, until_s: float) -> Load:
    """Power that alternates between two levels."""
    count = int((until_s - from_s) / STEP_S)
    return Load(
        tuple((from_s + k * STEP_S, HIGH_W if k % 2 else LOW_W) for k in range(-1000, count))
    )


def drifting(load: Load, since_s: float) -> Load:
    """What a meter shows of a load whose gain falls from a moment on."""
    steps = [step for step in load.steps if step[0] <= since_s]
    before_w = steps[-1][1]
    later = [(since_s, before_w), *(step for step in load.steps if step[0] > since_s)]
    return Load(
        (
            *steps,
            *((at, watts * max(LEAST, 1 - DRIFT_PER_S * (at - since_s))) for at, watts in later),
        )
    )


def shows(device: Device) -> tuple[int, str, bytes]:
    """What a plug answers now."""
    return shelly(device).by_path[STATUS]({})


class Meters:
    """Wall meters of one load: exact, late, drifting, and a server that has scraped it."""

    def __init__(self) -> None:
        self.load = square(time.time() - 60, time.time() + 1800)
        self.drifting = self.load
        series: Any = {"pdu": [({}, lambda at_s: f"{self.load.energy_j(at_s - AHEAD_S):.3f}")]}
        past = Prometheus(series, scrape_s=0.5, ahead_s=AHEAD_S, selectors=frozenset({"pdu"}))
        self.answers = Answers(
            {
                f"/exact{STATUS}": lambda _: shows(Device(self.load)),
                f"/late{STATUS}": lambda _: shows(Device(self.load, lag_s=3.0)),
                f"/drifts{STATUS}": lambda _: shows(Device(self.drifting)),
                f"/page{STATUS}": lambda _: (200, "text/html", b"<html>"),
                **past.answers().by_path,
            }
        )

    def drift(self) -> None:
        """Let the gain of one fall from now on."""
        self.drifting = drifting(self.load, time.time())


def plug(url: str, name: str, **keys: Any) -> dict[str, Any]:
    return {
        "kind": "http", "name": name, "url": f"{url}/{name}{STATUS}", "interval_ms": 200,
        "averaged_s": 0, "energy": {"path": "aenergy.total", "unit": "Wh"}, **keys,
    }  # fmt: skip


@dataclass
class Walled:
    """The run on the host with wall meters, over."""

    run: Run
    meters: Meters


@pytest.fixture(scope="module")
def walled(lab: Lab, machine: Run) -> Iterator[Walled]:
    """Side by side with the other run; one plug begins to drift when the first trial is over."""
    meters = Meters()
    with serving(meters.answers) as url:
        modelled = {
            "kind": "modelled", "command": "/usr/local/bin/energibridge-standin", "interval_ms": 100, "primary": True,
        }  # fmt: skip
        pdu = {
            "kind": "prometheus", "name": "pdu", "url": url, "interval_ms": 500, "averaged_s": 0,
            "energy": {"query": "pdu", "unit": "J"},
        }  # fmt: skip
        host = {"ssh_conn_id": "it_walled", "spool": f"/var/spool/wattbench/{WALLED}"}
        late = plug(url, "late", lag_s=3.0, lag_uncertainty_s=0.1)
        lab.add_hosts(
            {
                WALLED: host | {"meters": [modelled, plug(url, "exact"), late, plug(url, "drifts"), pdu]},
                "it-page": host | {"meters": [modelled, plug(url, "page")], "spool": "/var/spool/wattbench/it-page"},
            },
            {"it_walled": lab.connection(1)},
        )  # fmt: skip
        lab.write_experiment(
            WALLED, hosts=[WALLED, "it-page"],
            workload={
                "command": ["python3", "-c", "import time; time.sleep(4); print('processed 500 documents')"],
                "unit": {"name": "document", "pattern": r"processed (\d+)"},
            },
            protocol={
                "blocks": 2, "attempts": 1, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
                "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": None,
            },
        )  # fmt: skip
        run = lab.trigger(WALLED)
        collect = f"{WALLED}.trial.collect"
        lab.wait_for(
            run,
            lambda tasks: [
                t for t in tasks
                if (t.task_id, t.map_index, t.state) == (collect, 0, "success")
            ],
            within_s=300,
        )  # fmt: skip
        meters.drift()
        yield Walled(lab.follow(run), meters)


# ── what the runs show ──────────────────────────────────────────────────────────────────────────


def records_of(lab: Lab, run: Run, host: str) -> dict[str, list[Record]]:
    """Attempts by image, in order."""
    found: dict[str, list[Record]] = {}
    for attempts in lab.stored(run).records(host).values():
        found.setdefault(attempts[0].row.image, []).extend(attempts)
    return found


def said(record: Record, code: str) -> list[str]:
    """What a finding that takes its trial out says, cause by cause."""
    texts = [f.message for f in record.findings if f.code == code and f.is_found_error]
    return [cause for text in texts for cause in text.split("; ")]


def reported(lab: Lab, run: Run, code: str) -> dict[str, list[str]]:
    """The report's findings of a code: subject → what they say, cause by cause."""
    found: dict[str, list[str]] = {}
    for one in lab.store.get_json(store_keys.report_key(run.run_id, "findings.json")):
        if (one["code"], one["verdict"]) == (code, "found"):
            found.setdefault(one["subject"], []).extend(one["message"].split("; "))
    return found


@pytest.fixture(scope="module")
def attempts(lab: Lab, machine: Run, walled: Walled) -> Mapping[str, list[Record]]:
    assert walled  # begun meanwhile
    lab.follow(machine)
    return records_of(lab, machine, MACHINE)


def test_a_trial_beside_which_nothing_happens_is_valid_with_its_own_process_on_the_gpu(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    (record,) = attempts["both"]
    assert record.row.status == "valid", record.row.reason
    assert record.series["gpu0_foreign"]["max"] == 0
    gpus = {d.name: d for d in record.domains if d.counted}
    assert set(gpus) == {"gpu0", "gpu1"}  # joules of each apart
    for gpu in gpus.values():
        assert record.row.duration_s is not None
        assert abs(gpu.energy_j - 61.5 * record.row.duration_s) <= gpu.uncertainty_j


def test_a_cap_changed_in_mid_window_is_named_with_its_values_and_the_trial_is_repeated(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    first, again = attempts["cap"]
    assert (first.row.status, again.row.status) == ("invalid", "valid"), again.row.reason
    changes = [
        "rapl.package[0].long_term_w changes inside the window from 150 to 120",
        *(
            f"gpu[{gpu}].{limit}_w changes inside the window from 400 to 300"
            for gpu in (0, 1)
            for limit in ("power_limit", "enforced_limit")
        ),
    ]
    assert sorted(said(first, "state-changed")) == sorted(changes)
    others = [r for image, found in attempts.items() if image != "cap" for r in found]
    assert [said(r, "state-changed") for r in (again, *others)] == [[]] * (1 + len(others))
    shown = reported(lab, machine, "state-changed")
    assert sorted(shown[first.subject]) == sorted(changes)
    # Between the trials it is the host's, at the trial that began with it.
    assert any("from 150 to 120 at trial" in text for text in shown[f"host {MACHINE}"])


def test_a_process_of_others_on_a_gpu_in_mid_window_is_named_and_the_trial_is_repeated(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    first, again = attempts["intruder"]
    assert (first.row.status, again.row.status) == ("invalid", "valid"), again.row.reason
    text = "1 other process computed on GPU GPU-a inside the window"
    assert said(first, "host-busy") == [text]
    assert reported(lab, machine, "host-busy")[first.subject] == [text]


def test_a_given_gpu_that_is_idle_is_named_and_not_tried_again(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    (record,) = attempts["one-gpu"]
    assert record.row.status == "invalid"
    text = "of the given GPUs gpu1 never exceeds 0 %"
    assert said(record, "gpu-idle") == [text]
    assert reported(lab, machine, "gpu-idle") == {record.subject: [text]}


def test_an_image_that_never_uses_a_gpu_is_refused_before_its_first_trial(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    assert "never-both" not in attempts
    error = str(lab.stored(machine).pulls(MACHINE)["never-both"]["error"])
    assert "its trials would be invalid: of the given GPUs gpu1 never exceeds 0 %" in error


def test_a_host_whose_caps_are_not_as_expected_is_refused_with_the_commands_that_set_them(
    lab: Lab, machine: Run, attempts: Mapping[str, list[Record]]
) -> None:
    assert attempts["cap"]  # which has left them changed
    run = lab.follow(lab.trigger(MACHINE, blocks=1))
    stored = lab.stored(run)
    assert stored.records(MACHINE) == {}
    reason = str((stored.host_document(MACHINE) or {}).get("reason"))
    for part in (
        "gpu[0].power_limit_w is 300, expected is 400", "gpu[1].power_limit_w is 300", "nvidia-smi -i 0 -pl 400",
        "rapl.package[0].long_term_w is 120, expected is 150",
    ):  # fmt: skip
        assert part in reason


# ── wall meters ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def trials(lab: Lab, walled: Walled) -> list[tuple[Record, tuple[float, float]]]:
    """Trials in order, with their windows on the host's clock, which is ours."""
    found = []
    for name, (record, *more) in lab.stored(walled.run).records(WALLED).items():
        assert not more
        key = store_keys.trial_key(walled.run.run_id, WALLED, name, 1, "attempt.json")
        command = lab.store.get_json(key)["command"]
        found.append((record, (command["started"]["unix_s"], command["ended"]["unix_s"])))
    assert len(found) == 4, lab.table(walled.run)
    return sorted(found, key=lambda one: one[1])


def wall(record: Record) -> dict[str, Domain]:
    """Joules at the wall by meter."""
    return {d.meter: d for d in record.domains if d.name == "wall"}


def test_each_wall_meter_holds_the_true_joules_within_its_uncertainty(
    trials: list[tuple[Record, tuple[float, float]]], walled: Walled
) -> None:
    """Also one that shows everything 3 s later, and a server whose clock is 5 s ahead."""
    for record, window in trials:
        meters = wall(record)
        assert set(meters) == {"exact", "late", "drifts", "pdu"}
        for name, domain in meters.items():
            load = walled.meters.drifting if name == "drifts" else walled.meters.load
            assert abs(domain.energy_j - load.between_j(*window)) <= domain.uncertainty_j, name
        assert meters["late"].uncertainty_j < 0.5 * (HIGH_W - LOW_W) * STEP_S


def test_a_wall_meter_that_drifts_is_found_once_it_is_further_off_than_the_meters_uncertainty(
    lab: Lab, trials: list[tuple[Record, tuple[float, float]]], walled: Walled
) -> None:
    first, last = trials[0][0], trials[-1][0]
    assert first.row.status == "valid", first.row.reason
    assert last.row.status == "invalid"
    shown = reported(lab, walled.run, "meter-disagree")
    assert first.subject not in shown
    for record, _ in trials:
        meters = wall(record)
        low, high = meters["drifts"], max(meters.values(), key=lambda d: d.energy_j)
        apart_j = high.energy_j - low.energy_j
        apart = apart_j > max(0.02 * high.energy_j, low.uncertainty_j + high.uncertainty_j)
        texts = shown.get(record.subject, [])
        named = [t for t in texts if t.startswith("wall: ") and "% apart" in t]
        assert len(named) == apart
        assert all("drifts" in text for text in named)


def test_a_wall_meter_that_reads_less_than_the_package_is_found(
    lab: Lab, trials: list[tuple[Record, tuple[float, float]]], walled: Walled
) -> None:
    shown = reported(lab, walled.run, "meter-disagree")
    below = {
        record.subject: [t for t in shown.get(record.subject, ()) if "of the whole machine at the wall" in t]
        for record, _ in trials
    }  # fmt: skip
    first, last = trials[0][0], trials[-1][0]
    assert below[first.subject] == []
    (text,) = below[last.subject]
    assert text.startswith("drifts reads ")
    assert "package + dram inside it" in text


def test_a_wall_meter_that_answers_a_web_page_refuses_its_host_before_anything_is_measured(
    lab: Lab, walled: Walled
) -> None:
    stored = lab.stored(walled.run)
    reason = str((stored.host_document("it-page") or {}).get("reason"))
    assert "http meter page answers a web page (HTML), not JSON" in reason
    assert stored.records("it-page") == {}
