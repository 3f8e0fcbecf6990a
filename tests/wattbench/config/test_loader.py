"""Config: what is accepted, and the one line that each mistake gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.config_mistakes import EXPERIMENT, HOSTS, MISTAKES, refusal
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostsConfig
from wattbench.config.loader import load_experiment, load_hosts
from wattbench.config.trigger import Selection, select
from wattbench.errors import ConfigError

REPO = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    return tmp_path


def loaded(folder: Path, text: str, name: str = "night") -> Experiment:
    path = folder / "experiments" / f"{name}.yaml"
    path.write_text(text)
    return load_experiment(path, load_hosts(folder))


def test_an_experiment_gets_the_papers_protocol_by_default(folder: Path) -> None:
    experiment = loaded(folder, EXPERIMENT)
    assert experiment.protocol.blocks == 30
    assert experiment.protocol.warm_up.seconds == 60
    assert experiment.images["metal"].command == ["python3", "run.py"]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_a_mistake_gets_one_line_with_file_path_and_next_action(
    folder: Path, old: str, new: str, said: str
) -> None:
    assert old in EXPERIMENT
    line = refusal(loaded, folder, EXPERIMENT.replace(old, new))
    assert said in line
    assert re.match(r"experiments/night\.yaml( line \d+)?: ", line)


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("gpu.powerlimit_w: 400", "gpu.powerlimit_w is not a setting of a machine; did you mean gpu.power_limit_w?"),
        ("'gpu[0].power_limt_w': 400", "gpu[0].power_limt_w is not a setting of a machine; did you mean gpu.power_limit_w?"),
        ("gpu.power_limit_w: off", "gpu.power_limit_w: 'off' must be a number"),
        ("cpu.turbo: 'off'", "cpu.turbo: 'off' must be on or off"),
        ("cpu.microcode: 0x2b000603", "must be text; put it in quotes"),
    ],
)  # fmt: skip
def test_an_expected_setting_that_does_not_exist_or_fit_is_one_line(
    folder: Path, expect: str, said: str
) -> None:
    text = HOSTS.replace("wattbench_cpu_b}", f"wattbench_cpu_b, expect: {{{expect}}}}}")
    (folder / "hosts.yaml").write_text(text)
    line = refusal(load_hosts, folder)
    assert said in line
    assert "hosts.yaml line 5: hosts.cpu-b.expect: " in line


def test_expected_settings_keep_the_types_of_yaml(folder: Path) -> None:
    expect = "{gpu.power_limit_w: 400, cpu.turbo: off, kernel.thp: never, 'gpu[1].ecc': true}"
    (folder / "hosts.yaml").write_text(
        HOSTS.replace("wattbench_cpu_b}", f"wattbench_cpu_b, expect: {expect}}}")
    )
    assert load_hosts(folder).hosts["cpu-b"].expect == {
        "gpu.power_limit_w": 400, "cpu.turbo": False, "kernel.thp": "never", "gpu[1].ecc": True,
    }  # fmt: skip


def test_a_file_name_that_cannot_be_an_id_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="rename it"):
        loaded(folder, EXPERIMENT, name="My Night")


def test_environment_numbers_become_text(folder: Path) -> None:
    text = EXPERIMENT.replace(
        '{ref: "pytorch/pytorch:2.6.0"}', "{ref: a/b, env: {OMP_NUM_THREADS: 1}}"
    )
    assert loaded(folder, text).images["pytorch"].env == {"OMP_NUM_THREADS": "1"}


def test_missing_hosts_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hosts\.example\.yaml"):
        load_hosts(tmp_path)


def test_a_modelled_meter_needs_a_command() -> None:
    with pytest.raises(ValueError, match=r"meter\.command is missing"):
        HostsConfig.model_validate(
            yaml.safe_load(HOSTS.replace("kind: energibridge, command: /usr/local/bin/energibridge", "kind: modelled"))
        )  # fmt: skip


def test_the_trigger_form_narrows_and_says_what_is_skipped(folder: Path) -> None:
    experiment = loaded(folder, EXPERIMENT)
    narrowed, hosts, images = select(experiment, Selection(images=["pytorch"], blocks=2, seed="7"))
    assert list(narrowed.images) == ["pytorch"]
    assert (narrowed.protocol.max_blocks, narrowed.seed, hosts) == (2, "7", {})
    assert images == {"metal": "left out in the trigger form"}


def test_the_trigger_form_cannot_leave_out_the_reference(folder: Path) -> None:
    with pytest.raises(ConfigError, match="reference 'pytorch'"):
        select(loaded(folder, EXPERIMENT), Selection(images=["metal"]))


def test_the_demo_is_valid_against_its_two_virtual_hosts(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text(
        HOSTS.replace("gpu-a", "virtual-1").replace("cpu-b", "virtual-2")
    )
    experiment = load_experiment(REPO / "config/experiments/demo.yaml", load_hosts(tmp_path))
    assert len(experiment.images) >= 3
    assert experiment.protocol.max_blocks >= 3
    assert experiment.workload.framework == "numpy"


def test_the_papers_protocol_is_the_papers(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text((REPO / "config/hosts.example.yaml").read_text())
    experiment = load_experiment(REPO / "config/experiments/paper.yaml", load_hosts(tmp_path))
    passes = {p.resolution: p.iterations for p in experiment.workload.passes}
    assert passes == {256: 400, 512: 200, 1024: 133, 2048: 100}
    assert (len(experiment.images), experiment.protocol.max_blocks) == (5, 30)
    assert experiment.protocol.idle_baseline is not None
    assert experiment.protocol.idle_baseline.seconds == 180


HOURS = "time,g_per_kwh\n2026-03-01T00:00Z,100\n2026-03-01T01:00Z,300\n"


def priced(analysis: str) -> str:
    return EXPERIMENT + f"analysis: {{{analysis}}}\n"


def test_a_table_of_carbon_intensities_is_read_with_the_experiment(folder: Path) -> None:
    (folder / "experiments" / "grid.csv").write_text(HOURS)
    experiment = loaded(folder, priced("carbon_g_per_kwh: grid.csv, price_per_kwh: 0.3"))
    stored = Experiment.model_validate(experiment.model_dump())
    for one in (experiment, stored):
        carbon = one.analysis.carbon_g_per_kwh
        assert carbon is not None
        assert not isinstance(carbon, float)
        assert (carbon.file, carbon.g_per_kwh) == ("grid.csv", [100.0, 300.0])
    plain = loaded(folder, priced("carbon_g_per_kwh: 380"))
    assert plain.analysis.carbon_g_per_kwh == 380.0
    assert plain.analysis.price_per_kwh is None


@pytest.mark.parametrize(
    ("analysis", "table", "said"),
    [
        ("carbon_g_per_kwh: grid.csv", None, "is not a CSV file in experiments/; put it beside the YAML"),
        ("carbon_g_per_kwh: ../hosts.yaml", None, "leaves the experiment's folder"),
        ("carbon_g_per_kwh: grid.csv", "<html>", "grid.csv has no column time"),
        ("carbon_g_per_kwh: grid.csv", HOURS.replace("300", "NaN"), "grid.csv line 3: 'NaN'"),
        ("carbon_g_per_kwh: -5", None, "must be at least 0"),
        ("carbon_g_per_kwh: .nan", None, "carbon_g_per_kwh"),
        ("pue: 0.9", None, "analysis.pue: 0.9: must be at least 1"),
        ("price_per_kwh: free", None, "analysis.price_per_kwh"),
        ("embodied: {kg_co2e: 1500}", None, "analysis.embodied.lifetime_years: is missing"),
        ("pric_per_kwh: 0.3", None, "did you mean price_per_kwh?"),
    ],
)  # fmt: skip
def test_bad_figures_of_money_and_carbon_are_one_line(
    folder: Path, analysis: str, table: str | None, said: str
) -> None:
    if table is not None:
        (folder / "experiments" / "grid.csv").write_text(table)
    assert said in refusal(loaded, folder, priced(analysis))
