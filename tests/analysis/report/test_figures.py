"""Figures: where things lie on axes, which images no other beats, and that power curves hold the joules."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import simulated_run as simulated
from wattbench.analysis.presentation import canvas
from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.palette import SERIES, looks_of
from wattbench.analysis.presentation.scales import Scale, scale_of
from wattbench.analysis.report import power_curves
from wattbench.analysis.report.figures import Artist, pareto_front
from wattbench.analysis.runs import assemble, load
from wattbench.analysis.storage.source import Source, open_source

PERCENT = st.floats(-95, 5000, allow_nan=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, assemble.RunData]:
    folder = tmp_path_factory.mktemp("run")
    source = open_source(simulated.write(folder, simulated.small(blocks=2, steady_s=6.0)))
    return source, assemble.assemble(load.load(source))


def test_a_linear_axis_is_linear() -> None:
    scale = scale_of([-5.0, 8.0], 1.0)
    assert not scale.symmetric_log
    middle = (scale.place(-5.0) + scale.place(8.0)) / 2
    assert scale.place(1.5) == pytest.approx(middle)


def test_an_axis_with_a_tenfold_and_a_tiny_effect_keeps_the_tiny_one_visible() -> None:
    scale = scale_of([1100.0, -0.6, 1.8], 1.0)
    assert scale.symmetric_log
    assert scale.place(1.8) - scale.place(-0.6) > 0.1
    assert scale.place(1100.0) < 1.0


@given(st.lists(PERCENT, min_size=1, max_size=6), st.floats(0.1, 10))
def test_an_axis_holds_everything_in_order(values: list[float], margin: float) -> None:
    scale = scale_of(values, margin)
    ordered = sorted([*values, 0.0, -margin, margin])
    places = [scale.place(v) for v in ordered]
    assert places == sorted(places)
    assert all(0.0 <= p <= 1.0 for p in places)
    assert scale.place(0.0) not in (0.0, 1.0)


@given(st.lists(PERCENT, min_size=1, max_size=6))
def test_ticks_are_few_inside_and_hold_zero(values: list[float]) -> None:
    scale = scale_of(values, 1.0)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 5
    assert 0.0 in ticks
    assert all(scale.low <= t <= scale.high for t in ticks)


def test_what_lies_beyond_an_axis_is_put_at_its_end() -> None:
    scale = Scale(-1.0, 1.0, symmetric_log=False)
    assert (scale.place(-7.0), scale.place(7.0)) == (0.0, 1.0)


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.tuples(st.floats(0, 50), st.floats(-50, 50)),
        min_size=1,
    )
)
def test_the_front_is_exactly_the_points_that_no_other_beats(
    points: dict[str, tuple[float, float]],
) -> None:
    def beaten(name: str) -> bool:
        x, y = points[name]
        return any(
            (px <= x and py <= y) and (px < x or py < y)
            for other, (px, py) in points.items()
            if other != name
        )

    front = pareto_front(points)
    assert {points[n] for n in front} == {points[n] for n in points if not beaten(n)}


def test_a_power_curve_holds_the_trial_s_joules(run: tuple[Source, assemble.RunData]) -> None:
    source, data = run
    chosen = power_curves.typical(data.accepted, "lab-a")
    curves, missing = power_curves.read(source, chosen.values())
    assert set(curves) == {"pytorch", "nvcr", "compiled"}
    assert missing == ()
    for image, curve in curves.items():
        edges = np.append(curve.time_s[:-1], curve.duration_s)
        joules = float(np.sum(np.diff(edges) * curve.power_w[:-1]))
        row = chosen[image].row
        assert joules == pytest.approx(row.energy_j, abs=2 * (row.energy_uncertainty_j or 0) + 1e-6)


def test_the_typical_trial_is_the_one_nearest_the_median(
    run: tuple[Source, assemble.RunData],
) -> None:
    _, data = run
    work = data.trials[(data.trials["status"] == "valid") & (data.trials["kind"] == "workload")]
    for host in data.hosts:
        for image, record in power_curves.typical(data.accepted, host).items():
            mine = work[(work["host"] == host) & (work["image"] == image)]["energy_j"]
            nearest = (mine - mine.median()).abs().min()
            assert abs((record.row.energy_j or math.inf) - mine.median()) == pytest.approx(nearest)


def test_images_keep_their_look_and_differ() -> None:
    looks = looks_of(["b", "ref", "a"], "ref")
    assert looks.images == ("ref", "a", "b")
    assert looks["ref"].colour == SERIES[0][0]
    many = looks_of([f"image-{i:02d}" for i in range(18)], None)
    assert len({(many[i].colour, many[i].marker) for i in many.images}) == 18


def spread(*, modelled: bool) -> Drawing:
    rows = pd.DataFrame(
        {"image": ["a"] * 6 + ["b"] * 2, "energy_j": [10.0, 11, 12, 11, 10, 12, 55, 60]}
    )
    drawn = Artist(looks_of(["a", "b"], "a"), modelled).spread(
        rows, "energy_j", "e", "Energy", "lab"
    )
    assert drawn is not None
    return drawn


def test_a_figure_is_themed_on_the_page_and_plain_in_its_file() -> None:
    drawn = spread(modelled=False)
    assert "var(--series-1)" in drawn.inline
    assert SERIES[1][0] not in drawn.inline
    assert "var(" not in drawn.svg
    assert SERIES[1][0] in drawn.svg
    assert drawn.png.startswith(b"\x89PNG")


def test_a_figure_s_file_is_sound_xml_with_units_on_its_axis() -> None:
    root = ElementTree.fromstring(spread(modelled=False).svg)
    texts = ["".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "energy, J (logarithmic)" in texts
    assert {"a", "b"} <= set(texts)


def test_a_modelled_figure_says_so_in_the_drawing_itself() -> None:
    drawn = spread(modelled=True)
    for svg in (drawn.inline, drawn.svg):
        assert canvas.MODELLED in svg
    assert drawn.caption.endswith("Modelled, not measured.")
    assert drawn.alt.startswith("Modelled, not measured.")
    assert canvas.MODELLED not in spread(modelled=False).svg


def test_nothing_to_draw_is_no_figure() -> None:
    artist = Artist(looks_of(["a"], "a"), modelled=False)
    empty = pd.DataFrame({"image": pd.Series(dtype=str), "energy_j": pd.Series(dtype=float)})
    assert artist.spread(empty, "energy_j", "e", "Energy", "lab") is None
    assert artist.power({}, "p", "lab") is None
