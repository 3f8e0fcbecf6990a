"""An ablation from one YAML to the report: variants built and pushed, run by the DAG, effects reported."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from demo import base_image, docker_engine, workloads
from tests.integration.conftest import Lab
from wattbench.dag_runs import Run
from wattbench.run import store_keys

pytestmark = pytest.mark.docker

FACTORS: dict[str, dict[str, str | dict[str, str]]] = {
    "installer": {"apt": "apt-numpy"},
    "threads": {"2": {"OPENBLAS_NUM_THREADS": "2"}},
    "kernels": {"prescott": {"OPENBLAS_CORETYPE": "Prescott"}},
    "bytecode": {"none": {"PYTHONPYCACHEPREFIX": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}},
}


@pytest.fixture(scope="module")
def said(lab: Lab) -> list[str]:
    """What building the variants printed."""
    client = docker_engine.ensure(lab.bed.checkout, print)
    if base_image.ensure(client, lab.bed.checkout, print).python.startswith("python:"):
        pytest.skip("on a base with pip, of pip-numpy's layers only the last one can run")
    changes = {
        factor: {
            level: {"env": c} if isinstance(c, dict) else {"ref": lab.image(c)}
            for level, c in levels.items()
        }
        for factor, levels in FACTORS.items()
    }
    lab.write_experiment(
        "it-ablation",
        hosts=[lab.bed.hosts[0].name],
        images={"pip-numpy": {"ref": lab.image("pip-numpy"), "layers": True}},
        factors=changes,
        workload={"framework": "numpy", "passes": [{"resolution": 64, "iterations": 4}]},
    )
    progress: list[str] = []
    workloads.ensure_variants(lab.bed.checkout, "it-ablation", lab.bed.registry, progress.append)
    return progress


@pytest.fixture(scope="module")
def run(lab: Lab, said: list[str]) -> Run:
    return lab.follow(lab.trigger("it-ablation"))


def test_the_rung_that_cannot_run_yet_is_named_and_left_out(
    lab: Lab, said: list[str], run: Run
) -> None:
    assert any("pip-numpy-layer-0: can't run the workload yet" in line for line in said)
    assert run.state == "success", lab.table(run)
    assert list(lab.stored(run).document["skipped_images"]) == ["pip-numpy-layer-0"]


def test_the_report_gives_the_effect_of_every_factor_and_layer(lab: Lab, run: Run) -> None:
    run_id = lab.stored(run).run_id
    data = lab.store.get(store_keys.report_key(run_id, "tables", "what_matters.csv"))
    found = pd.read_csv(io.BytesIO(data)).set_index("image")
    assert set(found.index) == {f"{f}-{level}" for f in FACTORS for level in FACTORS[f]} | {
        "pip-numpy"
    }
    assert (found["n"] == 2).all()
    # Debian's reference BLAS uses no vector instructions.
    assert found.loc["installer-apt", "estimate_pct"] > 0
    layer = found.loc["pip-numpy"]
    assert (layer["kind"], layer["against"]) == ("layer", "pip-numpy-layer-1")
    assert layer["size_diff_mb"] != 0
    page = lab.store.get(store_keys.report_key(run_id, "index.html")).decode()
    assert 'id="what-matters"' in page
