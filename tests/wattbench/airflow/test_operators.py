"""What a host's plan hands over to its trials."""

from __future__ import annotations

import pytest

from wattbench.airflow.operators import _marked
from wattbench.analysis.model.run_document import PullDocument
from wattbench.run.plan import PlannedTrial


@pytest.mark.parametrize(
    ("of_image", "pulls", "why"),
    [
        (True, {"a": PullDocument(digest="sha256:0")}, None),
        (True, {"a": PullDocument(error="its workload failed")}, "its workload failed"),
        (True, {}, "was not brought"),
        (False, {}, None),
    ],
    ids=["there", "refused", "not brought", "without an image"],
)
def test_a_trial_is_marked_where_its_image_or_its_process_was_refused(
    of_image: bool, pulls: dict[str, PullDocument], why: str | None
) -> None:
    trial = PlannedTrial(1, 1, "workload", "a")
    spec = _marked(trial, of_image, pulls)
    assert spec.pop("unavailable", None) == why
    assert spec == trial.to_dict()
