"""Keys of the store: the documented layout, and nothing that leaves its folder."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.analysis.model.errors import InputError
from wattbench.run import store_keys

RUN = "paper-20261123T131500Z-a1b2c3"
ALLOWED = string.ascii_letters + string.digits + "-._"


def test_keys_are_those_of_the_documented_layout() -> None:
    assert store_keys.run_json_key(RUN) == f"runs/{RUN}/run.json"
    assert store_keys.host_json_key(RUN, "gpu-a") == f"runs/{RUN}/hosts/gpu-a/host.json"
    trial = store_keys.trial_name(3, "pip-torch")
    assert trial == "003-pip-torch"
    assert (
        store_keys.trial_key(RUN, "gpu-a", trial, 2, "trial.json")
        == f"runs/{RUN}/hosts/gpu-a/trials/003-pip-torch/2/trial.json"
    )
    assert store_keys.trials_parquet_key(RUN) == f"runs/{RUN}/trials.parquet"
    assert store_keys.report_key(RUN, "index.html") == f"runs/{RUN}/report/index.html"
    assert store_keys.attempt_id(RUN, "gpu-a", trial, 1) == f"{RUN}/gpu-a/003-pip-torch/1"
    assert store_keys.trial_name(1234, "x") == "1234-x"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "ä", "-a", "a" * 201, "$(x)"])
def test_what_is_no_name_is_refused_with_the_allowed_characters(name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        store_keys.run_key(name)
    with pytest.raises(InputError):
        store_keys.host_key(RUN, name)
    with pytest.raises(InputError):
        store_keys.run_key(RUN, name)


def test_positions_and_attempts_count_from_one() -> None:
    with pytest.raises(InputError, match="count from 1"):
        store_keys.trial_name(0, "x")
    with pytest.raises(InputError, match="count from 1"):
        store_keys.trial_key(RUN, "h", "001-x", 0)


@given(st.text())
def test_a_text_is_accepted_as_a_name_or_refused_never_changed(text: str) -> None:
    wanted = (
        0 < len(text) <= 200
        and all(c in ALLOWED for c in text)
        and text[0] in string.ascii_letters + string.digits
    )
    if wanted:
        assert store_keys.run_key(text) == f"runs/{text}"
    else:
        with pytest.raises(InputError):
            store_keys.run_key(text)
