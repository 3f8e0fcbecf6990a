"""The audit of images built on this machine, held against what Docker itself says of them."""

from __future__ import annotations

import contextlib
import json
import subprocess

import docker as client
import pytest

from demo import base_image
from demo.checkout import here
from images.build import build
from wattbench.analysis.image import archive, checks
from wattbench.analysis.image.checks import Wants
from wattbench.analysis.image.provenance import describe
from wattbench.analysis.model.finding_codes import Verdict

pytestmark = pytest.mark.docker


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def pip_torch() -> str:
    with contextlib.closing(client.from_env()) as daemon:
        base = base_image.ensure(daemon, here(), print).python
    return build("pip-torch", base=base, label=here().label).ref


#: What `images/bloated` plants, on an image that is there already.
PLANTED = """\
FROM {base}
USER 0
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends file
RUN head -c 50000000 /dev/urandom > /opt/download.bin
RUN rm /opt/download.bin
RUN chmod g+w /opt/packages/torch/lib/libtorch_cpu.so
RUN find /opt/packages -name __pycache__ -prune -exec rm -rf {{}} +
ENV PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=16
USER 10001
"""


@pytest.fixture(scope="module")
def planted(pip_torch: str) -> str:
    ref = f"{here().prefix}/planted:test"
    argv = ["docker", "build", "-q", "-t", ref, "--label", here().label, "-"]
    recipe = PLANTED.format(base=pip_torch)
    subprocess.run(argv, input=recipe, text=True, check=True, capture_output=True)
    return ref


def test_layers_sizes_and_configuration_are_those_that_docker_tells(pip_torch: str) -> None:
    ref, image = pip_torch, describe(archive.read(pip_torch))
    (inspected,) = json.loads(docker("image", "inspect", ref))
    assert [one.diff_id for one in image.layers] == inspected["RootFS"]["Layers"]
    assert image.id == inspected["Id"]
    history = docker("history", "--human=false", "--format", "{{.Size}}", ref).splitlines()
    stored = [int(size) for size in reversed(history) if int(size)]
    # Of a base that was imported Docker also counts the names that links point to.
    assert [one.size_bytes for one in image.layers if one.size_bytes][1:] == stored[1:]
    assert image.size_bytes == pytest.approx(inspected["Size"], rel=1e-3)
    (torch,) = image.inventory.torches
    said = docker("run", "--rm", "--network", "none", "--entrypoint", "python3", ref, "-c",
                  "import torch, sys; print(torch.__version__, torch.version.debug, '%d.%d' % sys.version_info[:2],"
                  " torch.backends.mkl.is_available())").split()  # fmt: skip
    assert said == [
        torch.version,
        str(torch.debug),
        image.inventory.pythons[0].minor,
        str(torch.mkl),
    ]


def test_everything_planted_is_found(planted: str) -> None:
    image = describe(archive.read(planted))
    findings = checks.run(image, Wants(device="cpu", cores=2, max_waste_pct=5.0), {})
    found = {f.code: f for f in findings if f.verdict is Verdict.FOUND}
    assert found["thread-setting"].evidence["value"] == "16"
    assert found["bytecode-missing"].evidence["root"] == "/opt/packages"
    assert found["wasted-bytes"].is_found_error
    assert {one.kind for one in image.left_behind} >= {"apt package lists", "apt archives"}
    (download,) = [one for one in image.hidden if one.path == "opt/download.bin"]
    assert (download.size, str(download.how)) == (50_000_000, "deleted")
    again = [one for one in image.hidden if one.path.endswith("/torch/lib/libtorch_cpu.so")]
    assert [str(one.how) for one in again] == ["copied unchanged"]


def test_a_twin_without_planted_waste_is_let_pass(pip_torch: str) -> None:
    image = describe(archive.read(pip_torch))
    findings = checks.run(
        image, Wants(device="cpu", cores=2, max_waste_pct=5.0, platform=image.platform), {}
    )
    assert [f.code for f in findings if f.is_found_error] == []
    assert image.waste.share_pct < 1
