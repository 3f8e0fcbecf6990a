"""The section *what matters*: there where factors or layers were declared, and true to the effects."""

from __future__ import annotations

from pathlib import Path

import html5lib
import pytest

from tests.support import report_tables
from tests.support import simulated_run as simulated
from tests.support.simulated_run import Image
from wattbench.analysis import report
from wattbench.analysis.report.sections import what_matters
from wattbench.analysis.storage.source import open_source

XHTML = "{http://www.w3.org/1999/xhtml}"
IMAGES = {
    "wheel": Image(1.0, 1.0, 4.0, 1.0),
    "omp-1": Image(1.3, 1.2, 4.0, 1.0),
    "isa-sse": Image(1.6, 1.6, 4.0, 1.0),
    "isa-sse-omp-1": Image(1.6 * 1.3 * 0.9, 1.6 * 1.2, 4.0, 1.0),
    "fat-layer-2": Image(1.0, 1.0, 4.0, 1.5),
    "fat": Image(1.0, 1.0, 4.0, 2.5),
}
DECLARED = {
    "variants": {
        "omp-1": {"omp": "1"},
        "isa-sse": {"isa": "sse"},
        "isa-sse-omp-1": {"isa": "sse", "omp": "1"},
        "theirs-x": {"theirs": "x"},
    },
    "ladders": {
        "fat": [
            {"image": "fat-layer-1", "number": 1, "instruction": "RUN apt-get install python3"},
            {"image": "fat-layer-2", "number": 2, "instruction": "RUN pip install torch"},
            {"image": "fat", "number": 3, "instruction": f"RUN chmod {'-R /opt ' * 12}"},
        ]
    },
}


def made(folder: Path, **changes: object) -> report.Study:
    design = simulated.small(
        **{"images": IMAGES, "steady_s": 3.0, "blocks": 6, "failing": {}, "idle_every": None}
        | changes
    )
    return report.study(open_source(simulated.write(folder, design)))


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> report.Study:
    return made(tmp_path_factory.mktemp("declared"), declares=DECLARED)


def test_effects_stand_by_size_with_those_that_were_left_out_last(
    declared: report.Study, tmp_path: Path
) -> None:
    out = report_tables.write_tables(declared, tmp_path)
    found = report_tables.read(out, "what_matters")
    assert [(r["kind"], r["factor"], r["image"]) for r in found] == [
        ("factor", "isa", "isa-sse"), ("factor", "omp", "omp-1"), ("layer", "fat", "fat"),
        ("factor", "theirs", "theirs-x"),
    ]  # fmt: skip
    assert found[3]["reason"] == "an image of the comparison was left out"
    assert found[3]["estimate_pct"] == ""
    assert (float(found[2]["size_diff_mb"]), found[2]["against"]) == (1000.0, "fat-layer-2")
    (together,) = report_tables.read(out, "what_matters_together")
    assert (together["factor"], together["verdict"]) == ("isa × omp", "less")


def test_a_single_changes_effect_is_that_of_its_pair_of_images(tmp_path: Path) -> None:
    """Over hosts, as the conclusion has it; only the correction is another family's."""
    declared = {"variants": {"omp-1": {"omp": "1"}}}
    study = made(tmp_path, declares=declared)
    (effect,) = study.effects
    pair = next(
        p.these_hosts for p in study.conclusion.across.pairs
        if (p.these_hosts.a, p.these_hosts.b) == ("omp-1", "wheel")
    )  # fmt: skip
    assert effect.energy is not None
    assert effect.energy.individual == pair.individual
    assert effect.energy.p == pair.p


def test_the_section_says_the_largest_effect_and_what_names_stand_for(
    declared: report.Study,
) -> None:
    html = report_tables.section(declared, "what-matters")
    section = html5lib.HTMLParser(strict=True).parseFragment(html)
    said = " ".join("".join(section.itertext()).split())
    assert "The largest effect that is shown: isa sse, +" in said
    assert "layer 3 of fat" in said
    assert "registry.example/bench/isa-sse:1" in said
    assert "figures/what_matters.svg" in html
    shown = next(r for r in section.iter(f"{XHTML}tr") if "…" in "".join(r.itertext()))
    assert len("".join(shown.itertext())) < 200


def test_a_run_without_factors_has_no_such_section(tmp_path: Path) -> None:
    study = made(tmp_path, blocks=1)
    assert study.effects == ()
    assert not [name for name in study.tables if name.startswith("what_matters")]
    assert what_matters.summary(study.effects) == ""


def test_effects_without_a_verdict_are_not_called_shown(tmp_path: Path) -> None:
    declared = {"variants": {"fat-layer-2": {"size": "fat"}}}
    said = what_matters.summary(made(tmp_path, declares=declared, blocks=3).effects)
    assert said.startswith("No effect on energy is shown. Of 1 effect: 1 ")
