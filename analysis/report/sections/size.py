"""Image size, and the cost of starting."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from wattbench.analysis.presentation.canvas import Drawing
from wattbench.analysis.presentation.formatting import slug
from wattbench.analysis.presentation.table import Table
from wattbench.analysis.report import tables
from wattbench.analysis.report.costs import deployment
from wattbench.analysis.report.figures import Artist
from wattbench.analysis.report.registry import Section, section
from wattbench.analysis.report.study import Study


@section
class Size(Section):
    """Image size and the cost of starting."""

    name = "size"
    title = "Size and start-up"
    place = 50
    template = "size.html.j2"

    def tables(self, study: Study) -> Iterable[Table]:
        """Sizes, pulls, start-up and break-even."""
        data, reference = study.data, study.conclusion.reference
        costs = tables.startup(data)
        spans = tables.cost_spans(data, reference, study.conclusion.settings.alpha)
        return [
            costs,
            tables.break_even(costs, reference, spans),
            deployment(data, tables.steady(data), study.conclusion, tables.unit_of(data)),
            tables.sizes(data, study.conclusion),
            tables.pulls(data),
        ]

    def figures(self, study: Study, artist: Artist) -> Iterable[Drawing | None]:
        """Size against energy; start-up and break-even of each host."""
        frame = study.tables["sizes"].frame
        sizes, kind = tables.size_by_image(frame)
        yield artist.pareto(study.conclusion, sizes, kind, optimal(frame))
        for host in study.data.hosts:
            at, work = slug(host), study.valid_work(host)
            medians = work.groupby("image")[["startup_j", "steady_j"]].median()
            known = [i for i in study.looks.images if i in medians.index]
            yield artist.startup(medians.reindex(known).reset_index(), f"startup-{at}", host)
            costs = study.tables["startup"].frame
            yield artist.break_even(
                costs[costs["host"] == host],
                str(study.conclusion.reference),
                f"break-even-{at}",
                host,
                decided(study.tables["break_even"].frame, host),
            )


def optimal(sizes: pd.DataFrame) -> dict[str, bool | None]:
    """Whether an image is Pareto-optimal; None where that is undecided."""
    return {
        str(image): None if pd.isna(value) else bool(value)
        for image, value in zip(sizes["image"], sizes["pareto"], strict=True)
    }


def decided(break_even: pd.DataFrame, host: str) -> set[str]:
    """Images whose break-even on a host is decided."""
    of_host = break_even[(break_even["host"] == host) & break_even["decided"].astype(bool)]
    return {str(image) for image in of_host["image"]}
