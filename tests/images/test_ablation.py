"""An experiment's variants are built and pushed; rungs that can't run are named and left out."""

import contextlib
import re

import pytest

from images import packages
from images.ablation import main, parts
from wattbench.config.loader import read_experiment

EXPERIMENT = """
hosts: [h]
workload: {program: vit-tiny, passes: [{resolution: 64, iterations: 1}]}
images:
  base: {ref: "10.1.1.1:5000/wattbench/apt-torch:1", env: {A: b}}
  fat: {ref: "10.1.1.1:5000/wattbench/bloated:1", layers: true}
  theirs: {ref: "r.example/other/torch:2"}
reference: base
factors: {omp: {1: {env: {OMP_NUM_THREADS: 1}}}, installer: {venv: {ref: "10.1.1.1:5000/wattbench/pip-venv:1"}}}
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "night.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def built(docker, monkeypatch, capsys, experiment):
    """Runs the command with a fake `docker`; returns its exit code, output and what docker was asked."""

    @contextlib.contextmanager
    def served(requirements, python, say, with_dependencies):
        assert requirements, "rungs without packages need no wheels"
        yield "http://127.0.0.1:1/"

    monkeypatch.setattr(packages, "local_wheels", lambda: docker)
    monkeypatch.setattr(packages, "served", served)

    def run(*arguments, unable=""):
        if unable:
            (docker / "unable").write_text(unable)
        code = main([str(experiment), "--base", "base:1", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err, (docker / "calls").read_text()

    return run


def test_each_reference_of_ours_is_built_once_and_rungs_last(experiment):
    found = list(parts(read_experiment(experiment)))
    whole = [(p.folder, p.registry, p.tag) for p in found if p.dockerfile is None]
    assert whole == [(n, "10.1.1.1:5000", "1") for n in ("apt-torch", "bloated", "pip-venv")]
    rungs = [p for p in found if p.dockerfile]
    assert [p.image for p in rungs] == [f"fat-layer-{n}" for n in range(7)]
    assert all(re.fullmatch(rf"1-layer-{n}-[0-9a-f]{{8}}", p.tag) for n, p in enumerate(rungs))
    assert "chmod -R" in rungs[6].dockerfile
    assert "chmod -R" not in rungs[5].dockerfile


def test_rungs_that_cannot_run_the_workload_are_named_and_not_pushed(built):
    code, said, asked = built("--registry", "127.0.0.1:9", unable="layer-[0-2]")
    assert code == 0
    assert (
        "6 of 10, fat-layer-2: can't run the workload yet (ModuleNotFoundError: No module named 'torch'); left out"
        in said
    )
    assert said.splitlines()[-1] == "7 images built and pushed; trigger the experiment night"
    pushed = re.findall(r"^push (\S+)$", asked, re.MULTILINE)
    assert [ref.partition("-layer-")[2][:1] for ref in pushed] == ["", "", "", "3", "4", "5", "6"]
    assert all(ref.startswith("127.0.0.1:9/wattbench/") for ref in pushed)


def test_a_rung_is_tried_with_the_experiments_own_workload(built):
    _, _, asked = built()
    tried = next(line for line in asked.splitlines() if line.startswith("run --rm"))
    assert "--entrypoint python3" in tried
    assert "target=/opt/wattbench/workload.pyz,readonly" in tried
    assert "--program vit-tiny --framework torch --precision fp32 --device cpu" in tried


def test_a_rungs_label_and_context_are_its_own(built, docker):
    built()
    inputs = re.findall(r"wattbench\.inputs=(\w+)", (docker / "calls").read_text())
    # Of each rung two builds, here and for the registry, from the same inputs.
    assert len(set(inputs)) == 3 + 7


def test_a_ladder_of_which_only_the_whole_can_run_is_refused(built):
    code, said, _ = built(unable="layer")
    assert code == 2
    assert said.splitlines()[-1].startswith("images.fat.layers: only the whole image can run")


def test_an_experiment_with_nothing_to_build_says_what_it_looks_for(experiment, capsys):
    text = experiment.read_text().replace("wattbench/", "acme/").replace(", layers: true", "")
    experiment.write_text(text)
    assert main([str(experiment)]) == 2
    assert "no reference of the experiment ends in wattbench/NAME:TAG" in capsys.readouterr().err


def test_a_mistake_in_the_experiment_is_one_line(experiment, capsys):
    experiment.write_text(EXPERIMENT.replace("reference: base", "reference: bass"))
    assert main([str(experiment)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
