"""The one entry: what a run says, whatever is missing from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattbench.analysis.model.finding_codes import Verdict
from wattbench.analysis.model.trials import STATUSES, TrialRow, to_frame
from wattbench.analysis.stats import power
from wattbench.analysis.stats.conclude import conclude
from wattbench.analysis.stats.results import Conclusion, PairVerdict, Settings


def row(host: str, block: int | None, image: str, joules: float | None, **more: Any) -> TrialRow:
    values: dict[str, Any] = {
        "run_id": "r",
        "host": host,
        "kind": "workload",
        "block": block,
        "position": None,
        "planned_position": None,
        "image": image,
        "attempt": 1,
        "status": "valid" if joules is not None else "failed",
        "energy_j": joules,
        "energy_scope": "package+dram",
        "energy_source": "measured",
        "duration_s": 10.0,
        "late": False,
    }
    return TrialRow(**(values | more))


def run(
    levels: dict[str, float],
    hosts: tuple[str, ...] = ("h1",),
    blocks: int = 12,
    cv: float = 0.5,
    **more: Any,
) -> pd.DataFrame:
    """Blocks of every image on every host, in order, with noise."""
    rng = np.random.default_rng(4)
    rows = []
    for host in hosts:
        position = 0
        for block in range(1, blocks + 1):
            for image, level in levels.items():
                position += 1
                joules = level * math.exp(rng.normal(0, cv / 100))
                rows.append(
                    row(host, block, image, joules, position=position,
                        planned_position=position, **more)
                )  # fmt: skip
    return to_frame(rows)


def numbers(value: Any) -> Iterator[float]:
    """Every float in a nested structure."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from numbers(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from numbers(v)


def assert_whole(found: Conclusion) -> None:
    """No NaN or infinity anywhere, every gap with its reason."""
    plain = found.to_dict()
    json.dumps(plain, allow_nan=False)
    assert all(math.isfinite(v) for v in numbers(plain))
    assert found.headline.sentence
    for host in found.hosts:
        for pair in host.pairs:
            assert pair.individual is not None or pair.reason
            assert pair.verdict is not PairVerdict.UNDECIDED or pair.reason
        for image in host.images:
            assert image.valid or image.reason


# The sentence -----------------------------------------------------------------------------------


def test_the_headline_says_which_how_much_and_how_sure() -> None:
    found = conclude(run({"apt": 200, "pip": 180, "src": 190}, ("h1", "h2")), Settings("apt"))
    pair = found.across.pairs[0].these_hosts
    assert (pair.a, pair.b) == ("pip", "apt")
    assert pair.simultaneous is not None
    low, high = -pair.simultaneous.upper_pct, -pair.simultaneous.lower_pct
    digits = 2 if high - low < 0.5 else 1
    assert found.headline.sentence == (
        f"pip uses the least energy: {-pair.estimate_pct:.{digits}f}\u202f% less than apt "
        f"({low:.{digits}f} to {high:.{digits}f}\u202f%)."
    )
    assert found.headline.conditions == "2 hosts, intervals hold jointly at 95 %."
    assert found.headline.decided
    assert [r.image for r in found.ranking] == ["pip", "src", "apt"]
    assert [r.rank for r in found.ranking] == [1, 2, 3]


def test_a_large_effect_is_a_ratio_with_the_ratios_of_its_interval() -> None:
    found = conclude(run({"apt": 1000, "pip": 160}, cv=2), Settings("apt"))
    bounds = found.headline.pair.simultaneous
    ratio, low, high = (
        1 / (1 + v / 100) for v in (bounds.estimate_pct, bounds.upper_pct, bounds.lower_pct)
    )
    assert found.headline.sentence == (
        f"pip uses the least energy: apt needs {ratio:.1f} times as much ({low:.1f} to {high:.1f})."
    )


@given(
    st.lists(st.floats(50, 500), min_size=1, max_size=7),
    st.integers(1, 12),
    st.floats(0, 8),
    st.sampled_from([("h1",), ("h1", "h2")]),
)
@settings(max_examples=15, deadline=None)
def test_the_first_sentence_has_at_most_25_words(
    joules: list[float], blocks: int, cv: float, hosts: tuple[str, ...]
) -> None:
    means = {f"image-{i}": mean for i, mean in enumerate(joules)}
    found = conclude(run(means, hosts, blocks=blocks, cv=cv), Settings("image-0"))
    text = found.headline.sentence
    assert len(text.split()) <= 25
    assert text.count(".") - len(re.findall(r"\d\.\d", text)) == 1
    decided = {p.verdict for h in found.hosts for p in h.pairs} | {
        p.leading.verdict for p in found.across.pairs
    }
    if not decided & {PairVerdict.LESS, PairVerdict.MORE}:
        assert not re.search(r"\bless\b|\btimes\b", text)


def test_modelled_energy_is_said_to_be_modelled_first() -> None:
    found = conclude(run({"a": 100, "b": 90}, energy_source="modelled"), Settings("a"))
    assert found.headline.sentence.startswith("Modelled, not measured: b uses the least energy")
    assert found.headline.modelled
    assert found.energy_source == "modelled"


def test_a_headline_says_that_equal_work_is_not_proven_and_a_missing_one_does_not():
    frame = run({"a": 100, "b": 80})
    usual, doubtful = (conclude(frame, Settings("a"), known).headline for known in (True, False))
    assert doubtful.sentence == usual.sentence
    assert doubtful.conditions == f"Equal work is not proven. {usual.conditions}"
    alone = conclude(run({"a": 100}), Settings("a"), False).headline
    assert alone.sentence.startswith("No verdict")
    assert "Equal work" not in alone.sentence + alone.conditions


def test_energy_per_unit_is_that_of_the_workload_s_own_unit():
    frame = run({"a": 100, "b": 80})
    frame = frame.assign(unit="document", units=500.0, j_per_unit=frame["energy_j"] / 500)
    (host,) = conclude(frame, Settings("a")).hosts
    found = {s.endpoint: s for s in host.secondary}
    assert "j_per_image" not in found
    assert found["j_per_unit"].label == "energy per document"
    (pair,) = found["j_per_unit"].pairs
    assert pair.estimate_pct == pytest.approx(host.pairs[0].estimate_pct)


def test_a_run_partly_modelled_is_said_to_be_so() -> None:
    frame = run({"a": 100, "b": 90}, ("h1", "h2"))
    frame.loc[frame["host"] == "h2", "energy_source"] = "modelled"
    found = conclude(frame, Settings("a"))
    assert found.headline.sentence.startswith("Partly modelled, not measured: ")


def test_the_least_is_not_claimed_where_a_rival_is_undecided() -> None:
    found = conclude(run({"a": 100, "b": 80, "c": 80.7}, blocks=12, cv=2), Settings("a"))
    assert not found.headline.decided
    assert re.match(r"b uses \d+\.\d\u202f% less energy than a \(", found.headline.sentence)
    assert found.headline.conditions.startswith("c against b is undecided: ")


def test_an_undecided_pair_says_how_many_blocks_would_decide_it() -> None:
    found = conclude(run({"a": 100, "b": 80, "c": 80.7}, blocks=12, cv=2), Settings("a"))
    pair = found.hosts[0].pair("c", "b")
    needed = power.trials_to_decide(1.0, pair.sd_log_pct, alpha=0.05 / 3)
    assert f": {needed - 12} more blocks would decide ±1 %" in found.headline.conditions


def test_blocks_are_counted_per_host_where_hosts_share_them() -> None:
    found = conclude(run({"a": 100, "b": 100.3}, ("h1", "h2"), blocks=8, cv=2), Settings("a"))
    assert re.search(r"\d+ more blocks per host would decide ±1 %", found.headline.conditions)


def test_many_undecided_images_are_counted() -> None:
    means = {"a": 100.0, "b": 100.5, "c": 101.0, "d": 101.5, "e": 102.0}
    found = conclude(run(means, blocks=5, cv=4), Settings("a"))
    assert found.headline.sentence == "No image is shown to use the least energy."
    assert " and 2 more against " in found.headline.conditions
    assert found.headline.conditions.count("would decide") == 1


def test_equivalent_rivals_are_named_as_such() -> None:
    found = conclude(run({"a": 100, "b": 80, "c": 80}, blocks=30, cv=0.3), Settings("a"))
    assert re.match(r"equivalent to [bc] within ±1 %: [bc];", found.headline.conditions)
    assert found.headline.pair.b == "a"


def test_only_equivalent_images_are_said_to_be_equivalent() -> None:
    found = conclude(run({"a": 100, "b": 100}, blocks=30, cv=0.3), Settings("a"))
    assert re.fullmatch(r"[ab] and [ab] are equivalent within ±1 %\.", found.headline.sentence)


def test_a_reference_that_wins_is_compared_with_the_next() -> None:
    found = conclude(run({"a": 100, "b": 120, "c": 110}), Settings("a"))
    assert found.headline.sentence.startswith("a uses the least energy: ")
    assert "less than c (" in found.headline.sentence


def test_three_blocks_are_too_few_and_the_conditions_say_so() -> None:
    found = conclude(run({"a": 100, "b": 80}, blocks=3), Settings("a"))
    assert found.headline.sentence == "No image is shown to use the least energy."
    assert "a against b is undecided: 3 more blocks would decide ±1 %" in found.headline.conditions


def test_no_significance_is_never_called_the_same() -> None:
    found = conclude(run({"a": 100, "b": 100.2}, blocks=8, cv=3), Settings("a"))
    assert found.hosts[0].pairs[0].verdict is PairVerdict.UNDECIDED
    assert "equivalent within" not in found.headline.sentence + found.headline.conditions
    assert "undecided" in found.headline.conditions


def test_hosts_that_contradict_each_other_are_the_answer() -> None:
    first = run({"a": 100, "b": 80}, ("h1",))
    second = run({"a": 80, "b": 100}, ("h2",))
    found = conclude(pd.concat([first, second], ignore_index=True), Settings("a"))
    assert found.headline.sentence in (
        "Which image uses less depends on the host: b on h1, a on h2.",
        "Which image uses less depends on the host: a on h2, b on h1.",
    )


# What is missing --------------------------------------------------------------------------------


def test_a_run_without_valid_trials_says_that_first() -> None:
    frame = run({"a": 100, "b": 90}, blocks=2)
    frame["status"] = "failed"
    found = conclude(frame, Settings("a"))
    assert found.headline.sentence == "No verdict: none of 4 planned trials is valid."
    assert found.hosts[0].reason == "no valid trial"
    assert found.hosts[0].counts["failed"] == 4
    assert found.reference == "a"
    assert_whole(found)


def test_an_empty_run_has_a_conclusion() -> None:
    found = conclude(to_frame([]), Settings())
    assert found.headline.sentence == "No verdict: the run holds no workload trial."
    assert (found.hosts, found.reference, found.ranking) == ((), None, ())
    assert_whole(found)


def test_one_image_has_no_rival() -> None:
    found = conclude(run({"a": 100}), Settings())
    assert found.headline.sentence == "No verdict: a is the only image."
    assert found.hosts[0].reason == "one image only: nothing to compare"
    assert found.hosts[0].images[0].median_j == pytest.approx(100, rel=0.01)
    assert_whole(found)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("hosts", [("h1",), ("h1", "h2")])
def test_one_and_two_blocks_have_defined_answers(blocks: int, hosts: tuple[str, ...]) -> None:
    found = conclude(run({"a": 100, "b": 80}, hosts, blocks=blocks), Settings("a"))
    assert_whole(found)
    assert found.hosts[0].pairs[0].verdict is PairVerdict.UNDECIDED


def test_equal_joules_everywhere_have_defined_answers() -> None:
    for hosts in (("h1",), ("h1", "h2")):
        found = conclude(run({"a": 100, "b": 100, "c": 100}, hosts, cv=0), Settings("a"))
        assert_whole(found)
        assert {p.verdict for p in found.hosts[0].pairs} == {PairVerdict.EQUIVALENT}


def test_a_missing_host_is_stated_and_the_other_leads() -> None:
    frame = run({"a": 100, "b": 80}, ("h1", "h2"))
    frame.loc[frame["host"] == "h2", "status"] = "missing"
    found = conclude(frame, Settings("a"))
    assert found.host("h2") is not None
    assert found.host("h2").reason == "no valid trial"
    assert found.across.reason == "one host with valid trials: nothing to combine"
    assert found.headline.basis == "one host"
    assert found.headline.conditions.startswith("One host, ")


def test_a_reference_without_trials_is_replaced_and_that_is_said() -> None:
    frame = run({"a": 100, "b": 80, "c": 90})
    frame.loc[frame["image"] == "a", "status"] = "failed"
    found = conclude(frame, Settings("a"))
    assert found.reference == "b"
    assert found.notes[0].startswith("the reference a has no valid trial; ")
    assert_whole(found)


def test_without_a_reference_the_image_of_lowest_median_is_it() -> None:
    assert conclude(run({"a": 100, "b": 80, "c": 90}), Settings()).reference == "b"


# Only what counts -------------------------------------------------------------------------------


def test_idle_control_and_invalid_rows_do_not_count() -> None:
    clean = run({"a": 100, "b": 90})
    noise = [
        row("h1", 1, "a", 1e9, kind="idle"),
        row("h1", 1, "control", 5.0, kind="control"),
        row("h1", 3, "b", 1e9, status="invalid"),
        row("h1", None, "b", None, status="missing"),
    ]
    dirty = pd.concat([clean, to_frame(noise)], ignore_index=True)
    with_noise, without = (conclude(f, Settings("a")).hosts[0] for f in (dirty, clean))
    assert with_noise.pairs == without.pairs
    assert with_noise.counts == without.counts | {"invalid": 1, "missing": 1}


def test_sensitivity_shows_the_verdict_without_an_outlier() -> None:
    frame = run({"a": 100, "b": 100.9}, blocks=12, cv=0.6)
    frame.loc[frame.index[3], "energy_j"] = 60.0  # b in block 2
    (host,) = conclude(frame, Settings("a")).hosts
    (outlier,) = [o for o in host.fitness.outliers if o.image == "b"]
    assert (outlier.position, outlier.block, outlier.energy_j) == (4, 2, 60.0)
    (row_,) = [s for s in host.sensitivity if s.scenario == "without outliers"]
    assert row_.trials == 1
    assert row_.pairs[0].n == 11


def test_sensitivity_shows_the_verdict_without_late_attempts() -> None:
    frame = run({"a": 100, "b": 110}, blocks=6, cv=0.1)
    frame.loc[0, "late"] = True
    found = conclude(frame, Settings("a"))
    (row_,) = found.hosts[0].sensitivity
    assert (row_.scenario, row_.trials) == ("without late attempts", 1)
    assert row_.changed == (("b", "a", PairVerdict.MORE, PairVerdict.UNDECIDED),)
    assert found.hosts[0].fitness.late == 1


def test_sensitivity_shows_the_verdict_with_throttled_trials() -> None:
    frame = run({"a": 100, "b": 110}, blocks=6, cv=0.1)
    frame.loc[0, ["status", "findings"]] = ["invalid", "throttled"]
    (host,) = conclude(frame, Settings("a")).hosts
    (row_,) = host.sensitivity
    assert (row_.scenario, row_.trials) == ("with throttled trials", 1)
    assert row_.changed == (("b", "a", PairVerdict.UNDECIDED, PairVerdict.MORE),)
    assert host.fitness.throttled == 1


def test_a_code_that_all_trials_carry_takes_none_of_them_out() -> None:
    frame = run({"a": 100, "b": 110}, findings="modelled-energy")
    assert conclude(frame, Settings("a")).hosts[0].sensitivity == ()
    frame.loc[2, "findings"] = "modelled-energy memory-pressure"
    (row_,) = conclude(frame, Settings("a")).hosts[0].sensitivity
    assert (row_.scenario, row_.trials) == ("without trials that carry a finding", 1)


def test_drift_and_outliers_become_findings_of_their_host() -> None:
    frame = run({"a": 100, "b": 110}, blocks=20, cv=0.2)
    frame["energy_j"] *= np.linspace(1, 1.05, len(frame))
    found = {(f.code, f.verdict, f.subject) for f in conclude(frame, Settings("a")).findings}
    assert ("drift", Verdict.FOUND, "host h1") in found


def test_the_order_of_an_import_without_one_is_not_judged() -> None:
    rows = [row("", None, i, 100.0 + k + n / 7) for k, i in enumerate("ab") for n in range(10)]
    found = conclude(to_frame(rows), Settings("a"))
    assert found.hosts[0].fitness.trend.reason == "the order of execution is unknown"
    assert found.hosts[0].design == "unblocked"
    assert_whole(found)


def test_a_precision_above_the_margin_is_noted() -> None:
    settings_ = Settings("a", precision_pct=2.0, blocks_min=10, blocks_max=30)
    found = conclude(run({"a": 100, "b": 110}), settings_)
    assert any("can hardly show equivalence" in n for n in found.notes)
    assert found.hosts[0].stopping is not None
    assert found.hosts[0].stopping.stop


@pytest.mark.parametrize(
    "bad", [{"alpha": 0.6}, {"alpha": 0}, {"correction": "none"}, {"equivalence_pct": 0}]
)
def test_settings_outside_their_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Settings(**bad)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "h1", "h2"]),
            st.one_of(st.none(), st.integers(1, 4)),
            st.sampled_from("abc"),
            st.sampled_from(STATUSES),
            st.sampled_from([None, 0.0, 1.0, 5.0, 5.0, 7.5, 1e6]),
            st.sampled_from([None, "package", "package+dram", "gpu"]),
        ),
        max_size=24,
    )
)
def test_whatever_the_trials_there_is_an_answer_without_nan(
    trials: list[tuple[str, int | None, str, str, float | None, str | None]],
) -> None:
    frame = to_frame(
        row(host, block, image, joules, status=status, energy_scope=scope, position=k,
            package_j=joules, gpu_j=joules)
        for k, (host, block, image, status, joules, scope) in enumerate(trials, start=1)
    )  # fmt: skip
    assert_whole(conclude(frame, Settings()))
