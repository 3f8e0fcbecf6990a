"""The plan: complete blocks, random, repeatable for ever."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from wattbench.config.experiment import Control, IdleBaseline, Protocol
from wattbench.run.plan import PlannedTrial, make_plan, seed_of, shuffled, williams_square
from wattbench.run.run_id import make_run_id

names = st.lists(
    st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True),
    min_size=1,
    max_size=6,
    unique=True,
)
protocols = st.builds(
    Protocol,
    blocks=st.integers(1, 8),
    idle_baseline=st.none()
    | st.builds(
        IdleBaseline, every_blocks=st.integers(1, 3), per=st.sampled_from(["image", "host"])
    ),
    control=st.none() | st.builds(Control, every_blocks=st.integers(1, 3)),
)


@given(names, protocols, st.text(max_size=10))
def test_every_block_holds_every_image_once(
    images: list[str], protocol: Protocol, seed: str
) -> None:
    plan = make_plan(images, protocol, "host", seed)
    assert [t.planned_position for t in plan] == list(range(1, len(plan) + 1))
    assert [t.block for t in plan] == sorted(t.block for t in plan)
    for block in range(1, protocol.max_blocks + 1):
        members = Counter((t.kind, t.image, t.idle_state) for t in plan if t.block == block)
        assert set(members.values()) <= {1}
        assert {i for k, i, _ in members if k == "workload"} == set(images)
        idle = protocol.idle_baseline
        due = idle is not None and (block - 1) % idle.every_blocks == 0
        wanted = 0 if not due else len(images) if idle and idle.per == "image" else 1
        states = len(idle.states) if idle else 0
        assert sum(k == "idle" for k, *_ in members) == wanted * states
    assert len({t.name for t in plan}) == len(plan)


@given(names, protocols, st.text(max_size=10))
def test_a_plan_survives_its_stored_form(images: list[str], protocol: Protocol, seed: str) -> None:
    plan = make_plan(images, protocol, "host", seed)
    assert tuple(PlannedTrial.from_dict(t.to_dict()) for t in plan) == plan


def test_both_idle_states_are_in_every_idle_block_and_shuffled() -> None:
    images, both = ["a", "b"], IdleBaseline(state=["container", "loaded"], every_blocks=2)
    plan = make_plan(images, Protocol(blocks=40, idle_baseline=both), "h", "1")
    blocks = [
        [(t.image, t.idle_state) for t in plan if t.kind == "idle" and t.block == block]
        for block in range(1, 41)
    ]
    for block, members in enumerate(blocks, start=1):
        wanted = sorted(itertools.product(images, both.states)) if block % 2 else []
        assert sorted(members, key=str) == wanted
    firsts = Counter(members[0] for members in blocks if members)
    assert len(firsts) == 4
    assert {t.label.partition(" · ")[2] for t in plan if t.image == "a"} == {
        "a", "a (idle, container)", "a (idle, loaded)",
    }  # fmt: skip
    assert len(plan) == Protocol(blocks=40, idle_baseline=both).trials_of(len(images))


def test_state_of_idle_trials_changes_no_plan() -> None:
    plans = {
        make_plan(["a", "b"], Protocol(blocks=4, idle_baseline=IdleBaseline(state=state)), "h", "1")
        for state in ("container", "loaded")
    }
    assert len(plans) == 1


def test_the_order_is_pinned_for_ever() -> None:
    """Python's own shuffle may change between versions; this order must not."""
    plan = make_plan(["a", "b", "c"], Protocol(blocks=4, idle_baseline=None), "gpu-a", "1")
    import hashlib

    for block in range(1, 5):
        keys = {
            i: hashlib.sha256(f"1\0gpu-a\0{block}\0workload\0{i}".encode()).hexdigest()
            for i in "abc"
        }
        assert [t.image for t in plan if t.block == block] == sorted("abc", key=keys.__getitem__)


def test_all_orders_of_a_block_are_equally_likely() -> None:
    plan = make_plan(["a", "b", "c"], Protocol(blocks=6000, idle_baseline=None), "h", "seed")
    orders = Counter("".join(t.image for t in plan[i : i + 3]) for i in range(0, len(plan), 3))
    assert len(orders) == 6
    assert chisquare(list(orders.values())).pvalue > 0.001


def test_another_host_or_seed_gives_another_order() -> None:
    protocol = Protocol(blocks=10, idle_baseline=None)
    plans = {
        tuple(t.image for t in make_plan(["a", "b", "c"], protocol, host, seed))
        for host in ("h1", "h2")
        for seed in ("1", "2")
    }
    assert len(plans) == 4


def test_trials_tried_again_are_shuffled_on_their_own() -> None:
    plan = make_plan([*"abcdef"], Protocol(blocks=5, idle_baseline=None), "h", "1")
    again = shuffled(plan, "h", "1")
    assert set(again) == set(plan)
    assert [t.image for t in again[:6]] != [t.image for t in plan[:6]]


def test_the_run_id_holds_experiment_time_and_dag_run() -> None:
    when = datetime(2026, 11, 23, 14, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    import hashlib

    six = hashlib.sha256(b"demomanual__1").hexdigest()[:6]
    assert make_run_id("demo", "demo", "manual__1", when) == f"demo-20261123T120506Z-{six}"
    assert make_run_id("demo", "demo", "manual__1", when.astimezone(UTC)).endswith(six)


def test_a_null_seed_is_the_runs_own_and_stays_the_same_on_retry() -> None:
    assert seed_of(None, "run-1") == seed_of(None, "run-1") != seed_of(None, "run-2")
    assert seed_of(7, "run-1") == "7"


@pytest.mark.parametrize("size", range(1, 10))
def test_in_a_williams_square_each_treatment_follows_each_other_one_equally_often(
    size: int,
) -> None:
    rows = williams_square(size)
    assert all(sorted(row) == list(range(size)) for row in rows)
    pairs = Counter(pair for row in rows for pair in itertools.pairwise(row))
    assert set(pairs) == {(a, b) for a in range(size) for b in range(size) if a != b}
    assert len(set(pairs.values())) <= 1


def test_a_williams_plan_holds_every_image_once_per_block_and_is_balanced() -> None:
    protocol = Protocol.model_validate(
        {"blocks": 12, "order": "williams", "idle_baseline": {"per": "host"}, "control": {}}
    )
    images = ["a", "b", "c", "d"]
    plan = make_plan(images, protocol, "h", "seed")
    assert plan == make_plan(images, protocol, "h", "seed")
    assert plan != make_plan(images, protocol, "other", "seed")
    pairs: Counter[tuple[str, str]] = Counter()
    for block in range(1, 13):
        kinds = [(t.kind, t.image) for t in plan if t.block == block]
        assert {k for k, _ in kinds[:2]} == {"idle", "control"}
        order = [image for _, image in kinds[2:]]
        assert sorted(order) == images
        pairs.update(itertools.pairwise(order))
    assert set(pairs.values()) == {3}
