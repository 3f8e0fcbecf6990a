"""Equal work in every framework: each is installed into a place of its own and compared with torch."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from images.workload import cli
from wattbench.analysis.checks.rules.work import FINGERPRINT_RTOL

pytestmark = pytest.mark.slow  # it installs frameworks and compiles graphs

WORKLOAD = Path(cli.__file__).parent
PLACES = WORKLOAD.parents[1] / "var" / "frameworks"
UV = Path(sys.executable).with_name("uv")
PACKAGES = {
    "onnxruntime": ["onnx==1.19.1", "onnxruntime==1.23.2"],
    "jax": ["jax==0.7.2", "jaxlib==0.7.2"],
    "tensorflow": ["tensorflow-cpu==2.21.0"],
}


@functools.cache
def python_with(framework):
    """A Python that has a framework; made once a checkout."""
    if framework not in PACKAGES:
        return Path(sys.executable)
    packages = PACKAGES[framework]
    place = PLACES / hashlib.sha256(" ".join([sys.version, *packages]).encode()).hexdigest()[:12]
    PLACES.mkdir(parents=True, exist_ok=True)
    with (PLACES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([UV, "venv", "-q", "-p", sys.executable, place], check=True)
            install = [UV, "pip", "install", "-q", "-p", place / "bin" / "python", *packages]
            subprocess.run(install, check=True)
            (place / "complete").touch()
    return place / "bin" / "python"


def run(framework, program, precision, passes):
    argv = [python_with(framework), WORKLOAD, "--device", "cpu", "--framework", framework]
    argv += ["--program", program, "--precision", precision, "--passes", passes, "--batch", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True)


@functools.cache
def results(framework, program, precision="fp32", *, passes):
    """Hashes of weights and inputs, and the fingerprints."""
    done = run(framework, program, precision, passes)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    hashes = [line["sha256"] for line in lines if "sha256" in line]
    fingerprints = [line["fingerprint"] for line in lines if line["event"] == "result"]
    return hashes, np.array(fingerprints)


@pytest.mark.parametrize(
    ("framework", "program"),
    [
        *((framework, program) for framework in PACKAGES for program in ("resnet50", "vit-tiny")),
        ("torch-compile", "vit-tiny"),
        ("numpy", "resnet50"),
        ("numpy", "vit-tiny"),
    ],
)
def test_a_framework_computes_what_torch_computes(framework, program):
    passes = "64:1,96:1"
    if framework == "torch-compile":
        assert shutil.which("g++"), "torch.compile needs a C++ compiler: apt-get install g++"
        passes = "64:1"  # half a minute of compiling for each
    hashes, found = results(framework, program, passes=passes)
    expected_hashes, expected = results("torch", program, passes=passes)
    assert hashes == expected_hashes
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("framework", "program", "precision"),
    [
        *((framework, "resnet50", "fp16") for framework in PACKAGES),
        *((framework, "vit-tiny", "bf16") for framework in ("torch", "jax", "tensorflow")),
    ],
)
def test_a_narrow_precision_stays_within_what_the_equal_work_check_allows(
    framework, program, precision
):
    _, found = results(framework, program, precision, passes="64:1")
    _, wide = results("torch", program, passes="64:1")
    apart = np.abs(found - wide).max() / np.abs(wide).max()
    assert 0 < apart < FINGERPRINT_RTOL[precision]


def test_a_precision_that_a_framework_lacks_is_refused_by_name():
    done = run("onnxruntime", "vit-tiny", "bf16", "64:1")
    assert (done.returncode, done.stderr) == (
        cli.REFUSED,
        "workload: onnxruntime computes fp32 and fp16 here, not bf16\n",
    )
    done = run("numpy", "vit-tiny", "fp16", "64:1")
    assert (done.returncode, done.stderr) == (
        cli.REFUSED,
        "workload: numpy computes fp32 here, not fp16\n",
    )


def test_numpy_names_the_blas_that_is_loaded_and_refuses_a_gpu():
    done = run("numpy", "vit-tiny", "fp32", "32:1")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (versions,) = (event for event in events if event["event"] == "versions")
    assert any("openblas" in name for name in versions["blas"])
    argv = [sys.executable, WORKLOAD, "--device", "cuda", "--framework", "numpy"]
    done = subprocess.run([*argv, "--passes", "32:1"], capture_output=True, text=True)
    assert done.returncode == cli.REFUSED
    assert "numpy computes on the CPU, not on cuda" in done.stderr
