"""Images built and run for real, on the test bed's own base, without any registry."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from demo import base_image, checkout
from images import context
from images.build import build
from wattbench.workloads.builtin import PATH
from wattbench.workloads.program_bundle import bundle

pytestmark = pytest.mark.docker
RUN = ["docker", "run", "--rm", "--network", "none", "--cpuset-cpus", "0"]
PASSES = ["--batch", "1", "--passes", "64:2"]


@pytest.fixture(scope="module")
def base():
    import docker

    with contextlib.closing(docker.from_env()) as client:
        return base_image.ensure(client, checkout.here(), print).python


@pytest.fixture(scope="module")
def pip_torch(base):
    return build("pip-torch", base=base, label=checkout.here().label)


def workload(ref, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        program = Path(folder) / "workload.pyz"
        program.write_bytes(bundle().content)
        mount = f"type=bind,source={program},target={PATH},readonly"
        argv = [*RUN, "--mount", mount, "--entrypoint", "python3", ref, PATH, *PASSES, *arguments]
        result = subprocess.run(argv, capture_output=True, text=True)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def test_the_image_computes_what_the_program_computes_here(pip_torch):
    code, lines = workload(pip_torch.ref, "--device", "cpu")
    assert code == 0
    events = {line["event"]: line for line in lines}
    # The same two numbers as outside any container: tests/images/test_workload_run.py
    assert events["weights"]["sha256"].startswith("6a1769453155cc16")
    assert events["result"]["fingerprint"][0] == pytest.approx(1.9712, rel=1e-3)
    assert events["versions"]["bytecode"] is True


def test_the_image_refuses_a_gpu_that_is_not_there(pip_torch):
    code, lines = workload(pip_torch.ref, "--device", "cuda")
    assert code == 3
    assert lines[-1]["event"] == "error"


def test_the_image_runs_unprivileged_with_its_bytecode_and_can_sleep(pip_torch):
    def inside(program, *arguments):
        argv = [*RUN, "--entrypoint", program, pip_torch.ref, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert inside("id", "-u").strip() == "10001"
    inside("sleep", "0")
    compiled = inside("find", "/opt/packages/torch/nn", "-name", "*.pyc")
    assert len(compiled.splitlines()) > 50


def test_the_image_says_where_it_comes_from(pip_torch, base):
    described = json.loads(
        subprocess.check_output(["docker", "image", "inspect", pip_torch.ref], text=True)
    )[0]
    labels = described["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "pip-torch"
    assert labels["org.opencontainers.image.base.name"] == base
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")


def test_a_second_build_reuses_the_first(pip_torch, base):
    again = build("pip-torch", base=base, label=checkout.here().label)
    assert again.reused
    assert again.ref == pip_torch.ref


@pytest.fixture(scope="module")
def stand_in(base, pip_torch):
    """The base of the study's three that install torch themselves: with pip, and with a torch."""
    ref = f"{checkout.here().prefix}/stand-in:python"
    recipe = (
        f"FROM {base}\n"
        "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-pip\n"
        f"COPY --from={pip_torch.ref} /opt/packages /opt/packages\n"
        "ENV PYTHONPATH=/opt/packages PIP_BREAK_SYSTEM_PACKAGES=1\n"
    )
    argv = ["docker", "build", "-q", "-t", ref, "--label", checkout.here().label, "-"]
    subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True)
    return ref


@pytest.fixture
def torch_is_there(tmp_path, monkeypatch):
    """The images' files but for the pinned CUDA wheel of torch, which only its own index has."""
    folder = tmp_path / "images"
    shutil.copytree(context.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "torch-cuda.txt").write_text("")
    monkeypatch.setattr(context, "FOLDER", folder)


@pytest.mark.parametrize("name", ["paper-ubuntu", "paper-python", "paper-cuda"])
def test_the_studys_images_that_install_torch_build_on_a_stand_in(name, stand_in, torch_is_there):
    made = build(name, base=stand_in, label=checkout.here().label)
    code, lines = workload(made.ref, "--device", "cpu")
    assert code == 0
    assert lines[-1]["images"] == 2


@pytest.mark.parametrize("name", ["paper-pytorch", "paper-nvcr"])
def test_the_workloads_part_of_the_studys_images_builds_on_a_stand_in(name, pip_torch):
    made = build(name, base=pip_torch.ref, label=checkout.here().label)
    code, lines = workload(made.ref, "--device", "cpu")
    assert code == 0
    assert lines[-1]["images"] == 2
