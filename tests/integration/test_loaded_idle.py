"""Idle trials in containers that hold the framework and the model loaded, through the DAG."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Lab

pytestmark = pytest.mark.docker

IDLE_S = 3.0


def test_a_container_holds_its_model_loaded_while_it_is_idle(lab: Lab) -> None:
    lab.write_experiment(
        "it-loaded", hosts=[lab.bed.hosts[0].name],
        protocol={
            "blocks": 1, "warm_up": {"seconds": 1, "until_steady": False}, "timeout_s": 120,
            "rest": {"min_s": 0.5, "max_s": 5}, "idle_baseline": {"seconds": IDLE_S, "state": "loaded"},
        },
    )  # fmt: skip
    run = lab.follow(lab.trigger("it-loaded"))
    assert run.state == "success", lab.table(run)
    records = lab.stored(run).records(lab.bed.hosts[0].name)
    rows = [attempts[-1].row for attempts in records.values()]
    idle = [row for row in rows if row.kind == "idle"]
    assert {row.image for row in idle} == {"pip-numpy", "one-thread"}
    for row in idle:
        assert (row.status, row.idle_state) == ("valid", "loaded"), row.reason
        # The container's start and the loading are outside of the window.
        assert row.duration_s == pytest.approx(IDLE_S, abs=0.5)
    assert {row.idle_state for row in rows if row.kind != "idle"} == {None}
