"""Run ids: what is made is read back, and nothing else is taken for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.run.run_id import make_run_id, parse_run_id

DUE = datetime(2026, 3, 14, 1, 2, 3, tzinfo=UTC)


@given(
    experiment=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True),
    due=st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    dag_run_id=st.text(),
)
def test_what_is_made_is_read_back(experiment: str, due: datetime, dag_run_id: str) -> None:
    text = make_run_id(experiment, experiment, dag_run_id, due)
    parsed = parse_run_id(text)
    assert parsed is not None
    assert str(parsed) == text
    assert (parsed.experiment, parsed.due) == (experiment, due.replace(microsecond=0))


def test_the_time_is_utc_and_a_retry_has_the_same_id() -> None:
    local = DUE.astimezone(timezone(timedelta(hours=5)))
    assert make_run_id("night", "night", "manual__1", local) == make_run_id(
        "night", "night", "manual__1", DUE
    )
    assert make_run_id("night", "night", "manual__1", local).startswith("night-20260314T010203Z-")


@pytest.mark.parametrize(
    "text",
    ["", "night", "night-20260314T010203Z", "-20260314T010203Z-a1b2c3", "night-20261314T010203Z-a1b2c3",
     "night-20260314T010203Z-a1b2cg", "Night-20260314T010203Z-a1b2c3", "n/../m-20260314T010203Z-a1b2c3"],
)  # fmt: skip
def test_nothing_else_is_a_run_id(text: str) -> None:
    assert parse_run_id(text) is None


def test_runs_of_different_experiments_sort_by_when_they_were_due() -> None:
    ids = [make_run_id(name, name, "x", DUE + timedelta(hours=i)) for i, name in enumerate("zyx")]
    assert sorted(ids, key=lambda i: parse_run_id(i).order) == ids  # type: ignore[union-attr]
