"""What an audited campaign's numbers say: the product's own verdicts on each basis."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wattbench.analysis.audit import verdicts


def frame(n: int, **joules: float) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    rows = [
        ("", image, kind, level * float(np.exp(draw.normal(0, 0.01))), 100.0, f"{image} {i}")
        for image, level in joules.items()
        for kind in ("workload", "idle")
        for i in range(n)
    ]
    columns = ["host", "image", "kind", "energy_j", "duration_s", "subject"]
    return pd.DataFrame(rows, columns=columns)


def test_a_pair_has_the_estimate_of_hodges_and_lehmann_over_all_pairs_of_trials() -> None:
    trials = frame(12, slim=100.0, fat=110.0)
    (answer,) = verdicts.answers({"repaired": trials}, "slim", modelled=False)
    row = verdicts.table([answer]).iloc[0]
    work = trials[trials["kind"] == "workload"]
    logs = {image: np.log(mine["energy_j"]) for image, mine in work.groupby("image")}
    differences = np.subtract.outer(logs["fat"].to_numpy(), logs["slim"].to_numpy())
    assert row["diff_pct"] == pytest.approx(100 * np.expm1(np.median(differences)), abs=1e-9)
    assert row["lower_pct"] < 10 < row["upper_pct"]
    assert (row["image_a"], row["image_b"], row["verdict"]) == ("fat", "slim", "more")
    assert answer.sentence.startswith("slim uses the least energy: ")


def test_the_reference_is_found_under_its_name_without_suffix() -> None:
    names = {"torch-base": 100.0, "cuda-base": 90.0}
    (answer,) = verdicts.answers({"published": frame(8, **names)}, "torch", modelled=False)
    assert [p.b for p in answer.pairs] == ["torch-base"]


def test_comparing_without_blocks_is_said_to_confound_drift() -> None:
    (answer,) = verdicts.answers({"published": frame(8, a=100.0, b=90.0)}, None, modelled=False)
    assert any("drift of the machine can't be separated" in note for note in answer.notes)


def test_every_basis_with_workload_trials_answers_and_the_others_do_not() -> None:
    trials = frame(5, a=100.0, b=90.0)
    idle = trials[trials["kind"] == "idle"]
    bases = {"published": trials, "imported": idle, "repaired": trials}
    assert [a.basis for a in verdicts.answers(bases, None, modelled=False)] == [
        "published",
        "repaired",
    ]


def test_modelled_joules_are_called_so_first() -> None:
    (answer,) = verdicts.answers({"repaired": frame(5, a=100.0, b=90.0)}, None, modelled=True)
    assert answer.sentence.startswith("Modelled, not measured: ")


def test_one_image_alone_is_no_comparison() -> None:
    (answer,) = verdicts.answers({"repaired": frame(5, a=100.0)}, None, modelled=False)
    assert answer.sentence == "No verdict: a is the only image."
    assert verdicts.table([answer]).empty


def test_too_many_trials_to_compare_pair_by_pair_are_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "MOST_PER_IMAGE", 4)
    (answer,) = verdicts.answers({"repaired": frame(5, a=100.0, b=90.0)}, None, modelled=False)
    assert answer.sentence.startswith("No verdict: 5 trials of one image are more than the 4")
    assert not answer.pairs
