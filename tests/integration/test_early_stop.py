"""Stopping early acts in the DAG: later blocks are skipped, visibly, with the reason."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Lab

pytestmark = pytest.mark.docker


def test_a_host_that_is_precise_enough_skips_its_later_blocks(lab: Lab) -> None:
    lab.write_experiment(
        "it-early",
        hosts=[lab.bed.hosts[1].name],
        protocol={
            "blocks": {"min": 10, "max": 13, "precision_pct": 90.0}, "warm_up": {"seconds": 0},
            "timeout_s": 120, "rest": {"min_s": 0, "max_s": 1}, "idle_baseline": None,
        },
        workload={"framework": "numpy", "passes": [{"resolution": 32, "iterations": 1}]},
    )  # fmt: skip
    run = lab.follow(lab.trigger("it-early", seed="1"), within_s=900)
    assert run.state == "success", lab.table(run)
    stored = lab.stored(run)
    host = lab.bed.hosts[1].name
    outcomes = stored.outcomes(host)
    late = {t.name for t in stored.plan(host) if t.block > 10}
    assert set(outcomes) == late
    assert all(o["status"] == "skipped" and "block" in o["reason"] for o in outcomes.values())
    assert {
        t.state
        for t in lab.client.tasks(run)
        if t.task_id == f"{host}.trial.rest" and t.map_index >= 20
    } == {"skipped"}
    assert "20/20 trials valid, 6 skipped on purpose" in lab.log(run, "verdict")
